"""What the gateway costs: Dockyard with keys and accounting beside a bare proxy and other serving systems.

    python -m bench.gateway [--rounds N] [--quick] [--json FILE] [--peers NAME,NAME]

Each peer runs beside Dockyard alone and they are measured in turn: one connection, then 16. Every one of them reads the
same small request and sends a small reply; Dockyard's is the echo engine's. With one connection Dockyard is measured
once more, kept on one core together with the load: nobody has to wake the other core then.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.load import Plan, run_load
from bench.outcome import DOCKYARD, Outcome, parse_arguments, parser, recording
from bench.peers.http_server import PeerServer
from bench.peers.noop import AiohttpProxy, BareRelay, BentoML, LitServe
from bench.peers.ray_serve import RayOptions, RayServe
from bench.processes import BenchFailed, Usage, on_one_core
from bench.server import DockyardServer, echo_model

CONCURRENCY = 16
P50, P99 = "p50 at 1 connection", "p99 at 1 connection"
ONE_CORE = "p50 at 1 connection, all on one core"
RATE, LATENCY = f"requests at {CONCURRENCY} connections", f"p50 at {CONCURRENCY} connections"
CPU = f"server CPU at {CONCURRENCY} connections, all hops"
COMPLETION = json.dumps({"model": "echo", "prompt": "hi", "max_tokens": 2}).encode()
GENERATION = json.dumps({"id": "0", "prompt": "hi", "max_tokens": 2}).encode()  # what a replica is asked


@dataclass(frozen=True)
class Subject:
    """`pid`: of one that is measured on one core, too."""

    name: str
    url: str
    body: bytes
    headers: dict[str, str]
    usage: Callable[[], Usage]
    pid: int | None = None


@dataclass(frozen=True)
class Peer:
    name: str
    start: Callable[[], PeerServer]
    path: str
    body: bytes = COMPLETION


PEERS = (
    Peer("bare relay", BareRelay, "/"),
    Peer("bare proxy", AiohttpProxy, "/", GENERATION),
    Peer("ray serve haproxy", lambda: RayServe(RayOptions(), haproxy=True), "/app"),
    Peer("ray serve", lambda: RayServe(RayOptions()), "/app"),
    Peer("litserve", LitServe, "/predict"),
    Peer("bentoml", BentoML, "/predict"),
)


def main() -> None:
    words = parser(__doc__)
    words.add_argument("--peers", help="only these, separated by commas")
    arguments = parse_arguments(words, rounds=5)
    wanted = set(arguments.options.peers.split(",")) if arguments.options.peers else {peer.name for peer in PEERS}
    seconds = 1.0 if arguments.quick else 4.0
    question = "How long does a request take on its way to a replica and back, and how many go through a second?"
    with recording(arguments, "gateway", "The way through the gateway", question) as outcome:
        with DockyardServer() as server:
            server.deploy(server.import_model(echo_model(server.folder / "echo")), "echo", maxBatchSize=64)
            url, headers = f"{server.url}/v1/completions", server.inference_headers()
            ours = Subject(DOCKYARD, url, COMPLETION, headers, server.usage, server.pid)
            for number, peer in enumerate(peer for peer in PEERS if peer.name in wanted):
                first = number * arguments.rounds
                try:
                    with peer.start() as running:
                        outcome.versions[peer.name] = running.version
                        theirs = Subject(peer.name, running.url + peer.path, peer.body, _JSON_HEADERS, running.usage)
                        measure_in_turn(outcome, [ours, theirs], range(first, first + arguments.rounds), seconds)
                except BenchFailed as error:
                    outcome.not_run[peer.name] = str(error)
        judge(outcome)


_JSON_HEADERS = {"content-type": "application/json"}


def measure_in_turn(outcome: Outcome, subjects: Sequence[Subject], rounds: range, seconds: float) -> None:
    """Every other round begins with the other subject: what the first leaves behind, each leaves behind as often."""
    for number in rounds:
        for subject in subjects if number % 2 else reversed(subjects):
            measure(outcome, subject, number, seconds)
            print(f"  round {number - rounds.start + 1} of {len(rounds)}: {subject.name}", flush=True)


def measure(outcome: Outcome, subject: Subject, number: int, seconds: float) -> None:
    plan = Plan(url=subject.url, bodies=[subject.body], headers=subject.headers, seconds=seconds, warm_up_s=0.3)
    one = run_load(plan)
    before = subject.usage().cpu_s
    plan.concurrency, plan.warm_up_s = CONCURRENCY, 0.0  # the CPU of a warm-up would be counted, its requests not
    many = run_load(plan)
    cpu_s = subject.usage().cpu_s - before
    results = [one, many]
    if subject.pid is not None:
        plan.concurrency, plan.warm_up_s = 1, 0.3
        with on_one_core(subject.pid):
            results.append(run_load(plan))
    for result in results:
        if result.lost or not result.requests:
            raise BenchFailed(f"{subject.name} lost {result.lost} of {result.requests}: {'; '.join(result.errors)}")
    outcome.add(number, P50, "ms", subject.name, one.latency.p50)
    outcome.add(number, P99, "ms", subject.name, one.latency.p99)
    if subject.pid is not None:
        outcome.add(number, ONE_CORE, "ms", subject.name, results[-1].latency.p50)
    outcome.add(number, RATE, "/s", subject.name, many.rate)
    outcome.add(number, LATENCY, "ms", subject.name, many.latency.p50)
    outcome.add(number, CPU, "µs per request", subject.name, 1e6 * cpu_s / many.requests)


def judge(outcome: Outcome) -> None:
    for metric in (P50, P99, LATENCY, CPU):
        outcome.compare_all(metric, "lower")
    outcome.compare_all(RATE, "higher")
    outcome.judge("p50 at 1 connection ≤ 0.5 ms", P50, DOCKYARD, "<=", 0.5)
    outcome.judge("p99 at 1 connection ≤ 2 ms", P99, DOCKYARD, "<=", 2)
    outcome.judge(f"requests at {CONCURRENCY} connections ≥ 5,500 /s", RATE, DOCKYARD, ">=", 5500)


if __name__ == "__main__":
    main()
