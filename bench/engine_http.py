"""Tokens/s through Dockyard's HTTP divided by what the engine's own library makes offline, not streamed and streamed.

Same artifact, same batch size, threads, prompts and lengths. Offline, a process of its own generates full batches one
after the other; over HTTP, twice as many clients as a batch has rows keep the engine saturated. vLLM's server on the
CPU and `transformers serve` are measured the same way, against themselves: streamed ÷ not streamed, and the latter also
against the same offline library. Every subject is loaded all the time, idle unless it is its turn.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import psutil

from bench.generation import Endpoint, requests_sent, tokens_per_s, warm_up
from bench.models import BenchModel, ensure_endless_smollm2
from bench.outcome import Outcome, Ratio, Target, installed_version, parse_arguments, parser, recording
from bench.peers.offline import OfflineEngine
from bench.peers.transformers_serve import TransformersServer
from bench.peers.vllm import VllmServer
from bench.processes import BenchFailed, Usage
from bench.server import INT8, PLAIN, DockyardServer, Json

BATCH = 10
METRIC = "tokens/s, batch 10"
ENGINES: dict[str, Json] = {"ctranslate2": INT8, "transformers": PLAIN}
PEERS = ("vllm", "transformers serve")
CPU = "CPU ms per token"  # of all processes of the subject: a ratio above 1 may be bought with another core


@dataclass(frozen=True)
class Workload:
    """Of one measurement: `batches` full batches, each request `tokens` tokens long."""

    tokens: int
    batches: int

    @property
    def of_a_slow_peer(self) -> "Workload":
        """`transformers serve` makes a third of what its library makes: a round would be minutes of it alone.

        Two batches at least: its replies do not come batch by batch, and the edges of one would fall together.
        """
        return Workload(max(8, self.tokens // 4), 2)


@dataclass(frozen=True)
class Subject:
    """`measure` makes `tokens` tokens in all and returns tokens/s; `cpu_s` is the CPU time used so far."""

    measure: Callable[[], float]
    cpu_s: Callable[[], float]
    tokens: int

    def add(self, outcome: Outcome, number: int, name: str) -> None:
        before = self.cpu_s()
        speed = self.measure()
        outcome.add(number, METRIC, "tokens/s", name, speed)
        outcome.add(number, CPU, "ms", name, 1000 * (self.cpu_s() - before) / self.tokens)
        print(f"round {number + 1} {name}: {speed:.1f} tokens/s", flush=True)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--only", nargs="+", choices=(*ENGINES, *PEERS), help="these engines and peers alone")
    arguments = parse_arguments(options, rounds=5)
    wanted = arguments.options.only or [*ENGINES, *PEERS]
    question = "Tokens/s over HTTP ÷ the engine's own offline tokens/s at the same batch size"
    with recording(arguments, "engine_http", "Engines behind HTTP and offline", question) as outcome:
        workload = Workload(tokens=16, batches=2) if arguments.quick else Workload(tokens=64, batches=4)
        with _subjects(ensure_endless_smollm2(), wanted, outcome, workload) as subjects:
            for number in range(arguments.rounds):
                for name, subject in subjects.items():
                    subject.add(outcome, number, name)
        outcome.versions |= {name: installed_version(name) for name in ENGINES}
        _judge(outcome)


@contextmanager
def _subjects(
    model: BenchModel, wanted: list[str], outcome: Outcome, workload: Workload
) -> Iterator[dict[str, Subject]]:
    """Each subject's measurement; what is compared with each other is measured one right after the other."""
    with ExitStack() as stack:
        subjects: dict[str, Subject] = {}
        if engines := [name for name in wanted if name in ENGINES]:
            server = stack.enter_context(DockyardServer())
            model_id = server.import_model(model.folder)
            for engine in engines:
                job = server.deploy(model_id, engine, ENGINES[engine], maxBatchSize=BATCH)
                threads = _threads(server, job["deploymentId"])
                outcome.remarks.append(f"{engine}: {threads} thread(s) in the replica and offline")
                artifact = model.ctranslate2 if engine == "ctranslate2" else model.folder
                offline = stack.enter_context(OfflineEngine(engine, artifact, model.folder, threads))
                subjects[f"{engine} offline"] = Subject(
                    partial(offline.tokens_per_s, batch=BATCH, tokens=workload.tokens, batches=workload.batches),
                    lambda offline=offline: offline.usage().cpu_s,
                    BATCH * workload.batches * workload.tokens,
                )
                endpoint = Endpoint(server.url, engine, {"x-api-key": server.key})
                subjects |= _over_http(f"dockyard {engine}", endpoint, server.usage, workload)
        for name in (name for name in wanted if name in PEERS):
            try:
                peer = stack.enter_context(_peer(name, model))
                length = workload if name == "vllm" else workload.of_a_slow_peer
                subjects |= _over_http(name, peer.endpoint, peer.usage, length)
                outcome.versions[name] = peer.version
            except BenchFailed as error:
                outcome.not_run[name] = str(error)
        yield subjects


def _peer(name: str, model: BenchModel) -> "VllmServer | TransformersServer":
    return (
        VllmServer(model.folder, batch=BATCH) if name == "vllm" else TransformersServer(model.folder, continuous=True)
    )


def _over_http(name: str, endpoint: Endpoint, usage: Callable[[], Usage], workload: Workload) -> dict[str, Subject]:
    """Not streamed and streamed."""
    warm_up(endpoint, batch=BATCH)
    measure = partial(tokens_per_s, endpoint, tokens=workload.tokens, batch=BATCH, batches=workload.batches)
    tokens = requests_sent(BATCH, workload.batches) * workload.tokens
    return {
        f"{name} {how}": Subject(partial(measure, stream=stream), lambda: usage().cpu_s, tokens)
        for how, stream in (("http", False), ("streamed", True))
    }


def _threads(server: DockyardServer, deployment_id: str) -> int:
    """What the server gave its replica."""
    (replica,) = server.replicas(deployment_id)
    return int(psutil.Process(replica["pid"]).environ()["OMP_NUM_THREADS"])


def _judge(outcome: Outcome) -> None:
    for engine in ENGINES:
        offline = f"{engine} offline"
        for how, limit in (("http", 0.97), ("streamed", 0.95)):
            subject = f"dockyard {engine} {how}"
            ratio = outcome.compare(METRIC, subject, offline, better="higher")
            text = f"{subject} ÷ {offline} ≥ {limit}"
            outcome.targets.append(_target(text, ratio, limit))
    for name in PEERS:
        outcome.compare(METRIC, f"{name} streamed", f"{name} http", better="higher")
    outcome.compare(METRIC, "transformers serve http", "transformers offline", better="higher")


def _target(text: str, ratio: Ratio | None, limit: float) -> Target:
    if ratio is None:
        return Target(text, None, "not measured")
    low, high = ratio.spread
    return Target(text, ratio.median >= limit, f"{ratio.median:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
