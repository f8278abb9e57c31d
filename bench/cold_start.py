"""From the decision to start a replica to the first request that it answered, by phase, with a warm spare and without.

SmolLM2 on CTranslate2 (int8) and on Transformers, behind two local fleets without a server: one that keeps a spare of
each engine, one that starts every replica afresh. In every round each starts one replica, is asked for one token, and
ends the replica; the fleet with spares also starts three at once. What a spare costs while it waits is told, too.
The fleet with spares has started the model once before, as one that scales a deployment up has.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import psutil

from bench.models import BenchModel, ensure_endless_smollm2
from bench.outcome import Arguments, Outcome, parse_arguments, parser, recording
from bench.processes import BenchFailed
from bench.replicas import serving, worker_spec
from dockyard.clock import SystemClock
from dockyard.fleets.local.fleet import LocalFleet
from dockyard.protocols.fleet import ReplicaStatus
from dockyard.protocols.generation import TOKEN_HEADER, GenerateRequest, WorkerSpec, decode_event, encode_request

LIMITS_S = {"ctranslate2": 0.4, "transformers": 1.0}
AT_ONCE = 3
IDLE_S = 10.0
PHASES = ("importMs", "loadMs", "warmUpMs")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--only", nargs="+", choices=tuple(LIMITS_S), help="these engines alone")
    arguments = parse_arguments(options, rounds=10)
    question = "Seconds from the decision to start a replica to the end of its first request of one token"
    with recording(arguments, "cold_start", "Start of a replica", question) as outcome:
        asyncio.run(_measure(arguments, outcome, arguments.options.only or list(LIMITS_S)))


async def _measure(arguments: Arguments, outcome: Outcome, engines: list[str]) -> None:
    model = ensure_endless_smollm2()
    with tempfile.TemporaryDirectory() as folder:
        async with _fleet(Path(folder, "afresh"), []) as afresh, _fleet(Path(folder, "spares"), engines) as spares:
            for engine in engines:
                await _make_known(spares, _spec(model, engine))
            await _tell_costs(outcome, spares, arguments.quick)
            for number in range(arguments.rounds):
                for engine in engines:
                    for way, fleet in (("afresh", afresh), ("spare", spares)):
                        await _round(outcome, number, f"{engine}, {way}", fleet, _spec(model, engine))
                    took = await _together(spares, [_spec(model, engine) for _ in range(AT_ONCE)])
                    outcome.add(number, f"the last of {AT_ONCE} at once", "s", f"{engine}, spare", took)
    for engine in engines:
        outcome.compare("first answer", f"{engine}, spare", f"{engine}, afresh", better="lower")
        limit = LIMITS_S[engine]
        outcome.judge(f"{engine} from a spare ≤ {limit} s", "first answer", f"{engine}, spare", "<=", limit)


@asynccontextmanager
async def _fleet(run_dir: Path, engines: list[str]) -> AsyncIterator[LocalFleet]:
    """With a spare of each of `engines`, ready."""
    fleet = LocalFleet(run_dir, SystemClock())
    await fleet.open([])
    try:
        fleet.keep_warm(engines)
        async with asyncio.timeout(300):
            while len(fleet.warm()) < len(engines):
                fleet.changed.clear()
                await fleet.changed.wait()
        yield fleet
    finally:
        await fleet.close(stop_replicas=True)


def _spec(model: BenchModel, engine: str) -> WorkerSpec:
    threads = 1 if engine == "ctranslate2" else psutil.cpu_count() or 1
    return worker_spec(engine, model.artifact(engine), model.folder, batch=10, threads=threads)


async def _make_known(fleet: LocalFleet, spec: WorkerSpec) -> None:
    await serving(fleet, spec)
    await fleet.stop(spec.replica_id, grace_s=10)
    while spec.model_dir not in fleet.read_ahead()[spec.engine]:
        fleet.changed.clear()
        await fleet.changed.wait()


async def _round(outcome: Outcome, number: int, subject: str, fleet: LocalFleet, spec: WorkerSpec) -> None:
    began = time.monotonic()
    status = await serving(fleet, spec)
    ready = time.monotonic() - began
    await _ask(status)
    answered = time.monotonic() - began
    outcome.add(number, "first answer", "s", subject, answered)
    outcome.add(number, "ready", "s", subject, ready)
    assert status.health is not None
    timings = {"spawnMs": status.spawn_ms or 0, **{name: status.health.timings.get(name, 0) for name in PHASES}}
    for name, took_ms in timings.items():
        outcome.add(number, name, "ms", subject, took_ms)
    outcome.add(number, "memory (PSS)", "MiB", subject, _pss_mib(status.pid))
    told = ", ".join(f"{name} {took_ms:.0f}" for name, took_ms in timings.items())
    print(f"round {number + 1} {subject}: {answered:.3f} s ({told})", flush=True)
    await fleet.stop(spec.replica_id, grace_s=10)


async def _together(fleet: LocalFleet, specs: list[WorkerSpec]) -> float:
    began = time.monotonic()
    for status in await asyncio.gather(*(serving(fleet, spec) for spec in specs)):
        await _ask(status)
    took = time.monotonic() - began
    await asyncio.gather(*(fleet.stop(spec.replica_id, grace_s=10) for spec in specs))
    return took


async def _ask(status: ReplicaStatus) -> None:
    request = GenerateRequest(id="first", prompt="Once upon a time", temperature=0, max_tokens=1)
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(status.address.socket or "")) as session,
        session.post(
            "http://replica/generate",
            data=encode_request.encode(request),
            headers={TOKEN_HEADER: status.address.token, "content-type": "application/json"},
        ) as reply,
    ):
        lines = [decode_event.decode(line) async for line in reply.content]
    if not lines or lines[-1].finish is None:
        raise BenchFailed(f"the first request failed: {lines}")


async def _tell_costs(outcome: Outcome, fleet: LocalFleet, quick: bool) -> None:
    """What each spare takes while nothing asks for it."""
    processes = {engine: psutil.Process(pid) for engine, pid in fleet.warm().items()}
    before = {engine: _cpu_s(process) for engine, process in processes.items()}
    idle_s = 1.0 if quick else IDLE_S
    await asyncio.sleep(idle_s)
    for engine, process in processes.items():
        outcome.add(0, "memory of a spare (PSS)", "MiB", engine, _pss_mib(process.pid))
        share = 100 * (_cpu_s(process) - before[engine]) / idle_s
        outcome.add(0, "CPU of a spare that waits", "% of a core", engine, share)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _pss_mib(pid: int | None) -> float:
    return psutil.Process(pid).memory_full_info().pss / (1 << 20)


if __name__ == "__main__":
    main()
