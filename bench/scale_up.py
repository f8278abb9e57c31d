"""Demand rises, a new replica serves; demand falls, it goes: how long each takes, as the clients see it.

    python -m bench.scale_up [--rounds N] [--quick] [--json FILE] [--peers none] [--workload steps|ctranslate2]

A load of streams begins at once on a deployment with one replica, which runs four of them at a time. A new replica
serves when more streams are under way at once than the ones before it can run, for 30 ms at least: so it is measured in
the same way for everybody. Two workloads: streams of 200 ms that need no CPU, and SmolLM2 on CTranslate2, where the
replica that serves and the one that starts share the cores. scaleUpDelay is 30 ms, scaleDownDelay 600 ms everywhere.
"""

import contextlib
import datetime
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench.load import Plan, Sample, started_load
from bench.models import BenchModel, ensure_endless_smollm2
from bench.outcome import DOCKYARD, Arguments, Outcome, parse_arguments, parser, recording
from bench.peers.ray_serve import RayOptions, RayServe
from bench.processes import BenchFailed
from bench.server import INT8, PLAIN, DockyardServer, Json, echo_model

CAPACITY = 4  # streams at once per replica
STEP_S = 0.2
UP_S, DOWN_S = 0.030, 0.600
CERTAIN_S = 0.030
FEW_TOKENS = 24
TUNED, DEFAULT = "ray serve, tuned", "ray serve, default metric windows"
DOWN_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Workload:
    name: str
    clients: int
    max_replicas: int
    limit_s: float | None  # until the first new replica serves


STEPS = Workload("steps", clients=24, max_replicas=6, limit_s=None)
GENERATION = Workload("ctranslate2", clients=12, max_replicas=3, limit_s=UP_S + 0.4)


@dataclass(frozen=True)
class Subject:
    """`replicas` tells how many there are; `load_s` is as long as it needs to grow."""

    name: str
    url: str
    body: bytes
    headers: dict[str, str]
    load_s: float
    replicas: Callable[[], int]
    note: Callable[[Outcome, int, str, float], None] = lambda outcome, number, workload, rise: None


def main() -> None:
    words = parser(__doc__)
    words.add_argument("--peers", help="`none` measures Dockyard alone")
    words.add_argument("--workload", choices=(STEPS.name, GENERATION.name), help="only this one")
    arguments = parse_arguments(words, rounds=5, quick_rounds=1)
    model = ensure_endless_smollm2()
    question = "How long after demand rose does a new replica serve, and how long after it fell is it gone?"
    with recording(arguments, "scale_up", "Scaling up and down", question) as outcome:
        for workload in (STEPS, GENERATION):
            if arguments.options.workload in (None, workload.name):
                measure_workload(outcome, arguments, workload, model)
        lost = [row for row in outcome.rows if row.metric.endswith("requests lost") and row.subject == DOCKYARD]
        for row in lost:
            outcome.judge(f"{row.metric}: 0", row.metric, DOCKYARD, "<=", 0)


def measure_workload(outcome: Outcome, arguments: Arguments, workload: Workload, model: BenchModel) -> None:
    """Each peer beside Dockyard alone, in turn."""
    peers = () if arguments.options.peers == "none" else (TUNED, DEFAULT)
    with _dockyard(workload, model) as ours:
        if not peers:
            measure_in_turn(outcome, workload, [ours], range(arguments.rounds))
        for number, name in enumerate(peers):
            rounds = range(number * arguments.rounds, (number + 1) * arguments.rounds)
            try:
                with _ray(outcome, name, workload, model) as theirs:
                    measure_in_turn(outcome, workload, [ours, theirs], rounds)
            except BenchFailed as error:
                outcome.not_run[f"{name}, {workload.name}"] = str(error)
    first_new = _metric(workload, "first new replica serves")
    for what in ("first new replica serves", "all replicas serve", "back to one replica"):
        outcome.compare_all(_metric(workload, what), "lower")
    if workload.limit_s is not None:
        outcome.judge(f"{first_new} ≤ {workload.limit_s:g} s", first_new, DOCKYARD, "<=", workload.limit_s)


def measure_in_turn(outcome: Outcome, workload: Workload, subjects: Sequence[Subject], rounds: range) -> None:
    for number in rounds:
        for subject in subjects if number % 2 else reversed(subjects):
            measure(outcome, workload, subject, number)
            print(f"  {workload.name}, round {number - rounds.start + 1} of {len(rounds)}: {subject.name}", flush=True)


def measure(outcome: Outcome, workload: Workload, subject: Subject, number: int) -> None:
    """One rise and fall."""
    _await_one(subject)
    plan = Plan(
        url=subject.url,
        bodies=[subject.body],
        headers=subject.headers,
        concurrency=workload.clients,
        seconds=subject.load_s,
        keep=True,
        keep_bodies=False,
    )
    with started_load(plan) as load:
        result = load.result()
    back_at = _await_one(subject)
    good = [sample for sample in result.samples if 200 <= sample.status < 300]
    if len(good) <= CAPACITY:
        raise BenchFailed(f"{subject.name}: {len(good)} good replies; {'; '.join(result.errors)}")
    rise = min(sample.sent for sample in good)
    fall = sorted(sample.ended for sample in good)[-CAPACITY - 1]  # from here on one replica is enough
    _add_rise(outcome, workload, subject, number, good, rise)
    outcome.add(number, _metric(workload, "back to one replica"), "s", subject.name, back_at - fall)
    outcome.add(number, _metric(workload, "requests"), "", subject.name, result.requests)
    outcome.add(number, _metric(workload, "requests lost"), "", subject.name, result.lost)
    if result.lost:
        outcome.remarks.append(f"{subject.name}, {workload.name}: {'; '.join(result.errors)}")
    subject.note(outcome, number, workload.name, rise)


def _add_rise(
    outcome: Outcome, workload: Workload, subject: Subject, number: int, good: Sequence[Sample], rise: float
) -> None:
    whats = {"first new replica serves": CAPACITY, "all replicas serve": CAPACITY * (workload.max_replicas - 1)}
    for what, fewer in whats.items():
        at = busier_than(good, fewer)
        if at is None:
            outcome.remarks.append(
                f"{subject.name}, {workload.name}, round {number}: {what}: not within {subject.load_s:g} s"
            )
        else:
            outcome.add(number, _metric(workload, what), "s", subject.name, at - rise)


def busier_than(samples: Sequence[Sample], streams: int) -> float | None:
    """The first instant from which more than `streams` were under way for `CERTAIN_S`; None if there is none."""
    changes = sorted(change for one in samples for change in ((one.first, 1), (one.ended, -1)))
    under_way, since = 0, None
    for instant, change in changes:
        if since is not None and instant - since >= CERTAIN_S:
            return since
        under_way += change
        if under_way <= streams:
            since = None
        elif since is None:
            since = instant
    return None


def _await_one(subject: Subject) -> float:
    """Wait until one replica is left; the instant when it was seen."""
    deadline = time.monotonic() + DOWN_TIMEOUT_S
    while subject.replicas() > 1:
        if time.monotonic() > deadline:
            raise BenchFailed(f"{subject.name} keeps its replicas for longer than {DOWN_TIMEOUT_S:g} s without demand")
        time.sleep(0.01)
    return time.monotonic()


@contextlib.contextmanager
def _dockyard(workload: Workload, model: BenchModel) -> Iterator[Subject]:
    with DockyardServer() as server:
        echo = workload is STEPS
        source = echo_model(server.folder / "echo", step_ms=1000 * STEP_S) if echo else model.folder
        job = server.deploy(
            server.import_model(source, workload.name),
            workload.name,
            PLAIN if echo else INT8,
            maxBatchSize=CAPACITY,
            minReplicas=1,
            maxReplicas=workload.max_replicas,
            scaleUpDelay=int(1000 * UP_S),
            scaleDownDelay=int(1000 * DOWN_S),
        )
        deployment: str = job["deploymentId"]
        tokens = 2 if echo else FEW_TOKENS  # the first comes at once, the second a step later
        body = {"model": workload.name, "prompt": "Once upon a time", "max_tokens": tokens, "stream": True}
        told = _ReplicasTold(server, deployment)
        url, headers = f"{server.url}/v1/completions", server.inference_headers()
        yield Subject(DOCKYARD, url, json.dumps(body).encode(), headers, 4.0, told.count, told.note)


class _ReplicasTold:
    """What Dockyard itself says about its replicas: how many there are, and how the new ones of a round started."""

    def __init__(self, server: DockyardServer, deployment_id: str) -> None:
        self._server = server
        self._deployment_id = deployment_id
        self._seen: dict[str, Json] = {}

    def count(self) -> int:
        replicas = self._server.replicas(self._deployment_id)
        self._seen |= {replica["replicaId"]: replica for replica in replicas}
        return len(replicas)

    def note(self, outcome: Outcome, number: int, workload: str, rise: float) -> None:
        """`rise` is of the monotonic clock, the replicas' times are of the wall's."""
        rise_at = time.time() - (time.monotonic() - rise)
        started = [(_seconds(one["startedOn"]) - rise_at, one) for one in self._seen.values() if one["readyOn"]]
        new = sorted((after for after in started if after[0] > 0), key=lambda after: after[0])
        if new:
            decided, replica = new[0]
            outcome.add(number, f"{workload}: replica is decided on", "s", DOCKYARD, decided)
            outcome.add(number, f"{workload}: replica is ready", "s", DOCKYARD, _seconds(replica["readyOn"]) - rise_at)
            for step, took_ms in replica["timings"].items():
                outcome.add(number, f"{workload}: the new replica's {step}", "ms", DOCKYARD, took_ms)
        self._seen.clear()


@contextlib.contextmanager
def _ray(outcome: Outcome, name: str, workload: Workload, model: BenchModel) -> Iterator[Subject]:
    options = RayOptions(
        app="pause" if workload is STEPS else "generate",
        ongoing=CAPACITY,
        max_replicas=workload.max_replicas,
        upscale_s=UP_S,
        downscale_s=DOWN_S,
        metrics_s=0.1 if name == TUNED else 0.0,
        pause_s=STEP_S,
        artifact=str(model.ctranslate2),
        model=str(model.folder),
        threads=len(os.sched_getaffinity(0)),
    )
    with RayServe(options, name=name) as ray:
        outcome.versions["ray serve"] = ray.version
        body = json.dumps({"prompt": "Once upon a time", "max_tokens": FEW_TOKENS}).encode()
        load_s = 15.0 if name == TUNED else 25.0
        yield Subject(
            name, f"{ray.url}/app", body, {"content-type": "application/json"}, load_s, lambda: ray.replicas("app")
        )


def _metric(workload: Workload, what: str) -> str:
    return f"{workload.name}: {what}"


def _seconds(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


if __name__ == "__main__":
    main()
