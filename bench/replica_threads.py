"""How many threads a replica should have, and how long they should spin: tokens/s of real replicas.

    .venv/bin/python bench/replica_threads.py .cache/SmolLM2-135M-Instruct.Q4_1.gguf

Imports the model, converts it to CTranslate2 int8_float16, and starts one replica after the other behind the local
fleet with 1, 2 … threads. Each setting is measured in every round, in turn, with 1 and 10 requests at once, alone and
beside one process that keeps a core busy; printed is the median over the rounds, in generated tokens per second.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import aiohttp
import msgspec

from dockyard.clock import SystemClock
from dockyard.domain.card import ModelCard
from dockyard.fleets.local.fleet import LocalFleet
from dockyard.prepare.runner import ProcessPreparer
from dockyard.protocols.generation import TOKEN_HEADER, GenerateRequest, WorkerSpec, decode_event, encode_request
from dockyard.protocols.preparation import ConvertTask, ImportTask, Progress

TOKENS = 24
SPINS = ("default", "10000", "500")


@dataclass(frozen=True)
class Setting:
    engine: str
    threads: int
    spin: str

    def __str__(self) -> str:
        return f"{self.engine:<13} {self.threads} thread(s)  spin {self.spin}"


async def main() -> None:
    arguments = _arguments()
    cores = len(os.sched_getaffinity(0))
    settings = [
        Setting(engine, threads, spin)
        for engine in ("ctranslate2", "transformers")
        for threads in sorted({1, cores})
        for spin in (SPINS if threads > 1 else SPINS[:1])
    ]
    seen: dict[tuple[Setting, str, int], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        specs, card = await _prepare(Path(arguments.model), Path(folder))
        for round_number in range(arguments.rounds):
            for setting in settings:
                async with _replica(Path(folder), specs, card, setting, round_number) as ask:
                    for company in ("alone", "busy"):
                        with _busy(company == "busy"):
                            for rows in (1, 10):
                                seen[setting, company, rows].append(await ask(rows))
                                print(f"{setting!s:<46} {company} ×{rows}: {seen[setting, company, rows][-1]:.1f}")
    print(f"tokens/s, {arguments.rounds} round(s), {cores} cores, {Path(arguments.model).name}")
    print(f"{'':<46}{'alone ×1':>10}{'alone ×10':>10}{'busy ×1':>10}{'busy ×10':>10}")
    for setting in settings:
        cells = [median(seen[setting, company, rows]) for company in ("alone", "busy") for rows in (1, 10)]
        print(f"{setting!s:<46}" + "".join(f"{cell:>10.1f}" for cell in cells))


async def _prepare(model: Path, folder: Path) -> tuple[dict[str, tuple[str, str]], ModelCard]:
    """Import and convert; returns (artifact folder, compute type) by engine, and the model's card."""
    places = {"artifacts_dir": str(folder / "artifacts"), "scratch_dir": str(folder / "scratch")}
    preparer = ProcessPreparer(**places)

    async def quietly(_: Progress) -> None: ...

    imported = await preparer.run(ImportTask(source=str(model.resolve()), **places), quietly)
    convert = ConvertTask(source_key=imported.key, engine="ctranslate2", quantization="int8_float16", **places)
    converted = await preparer.run(convert, quietly)
    source = preparer.artifact_dir(imported.key)
    specs = {
        "ctranslate2": (preparer.artifact_dir(converted.key), "int8_float32"),
        "transformers": (source, "float32"),
    }
    return {**specs, "source": (source, "")}, msgspec.convert(imported.card, ModelCard)


@asynccontextmanager
async def _replica(
    folder: Path, specs: dict[str, tuple[str, str]], card: ModelCard, setting: Setting, number: int
) -> AsyncIterator["_Ask"]:
    """A replica of the setting, ready; the fleet's own spin count gives way to the setting's."""
    spin = [] if setting.spin == "default" else [f"GOMP_SPINCOUNT={setting.spin}"]
    command = ("env", "-u", "GOMP_SPINCOUNT", *spin, sys.executable, "-m", "dockyard.worker")
    fleet = LocalFleet(folder / "run", SystemClock(), command=command)
    await fleet.open([])
    artifact, compute = specs[setting.engine]
    spec = WorkerSpec(
        replica_id=f"rp-{abs(hash((setting, number))):032x}",
        token="bench",
        engine=setting.engine,
        artifact_dir=artifact,
        model_dir=specs["source"][0],
        family=str(card.family),
        device="cpu",
        compute_type=compute,
        max_batch_size=10,
        context_length=card.context_length,
        threads=setting.threads,
        eos_token_ids=[],  # nothing ends a text early: every row makes TOKENS tokens
    )
    try:
        status = await fleet.start(spec)
        while status.health is None or status.health.phase != "ready":
            if not status.alive:
                raise SystemExit(f"the replica failed: {status.failure}")
            await fleet.changed.wait()
            fleet.changed.clear()
            status = fleet.statuses()[spec.replica_id]
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(status.address.socket or "")) as session:
            yield _Ask(session)
    finally:
        await fleet.close(stop_replicas=True)


class _Ask:
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def __call__(self, rows: int) -> float:
        """Tokens per second over `rows` requests at once."""
        began = asyncio.get_running_loop().time()
        counts = await asyncio.gather(*(self._one(number) for number in range(rows)))
        return sum(counts) / (asyncio.get_running_loop().time() - began)

    async def _one(self, number: int) -> int:
        request = GenerateRequest(id=str(number), prompt="Once upon a time", temperature=0, max_tokens=TOKENS)
        headers = {TOKEN_HEADER: "bench", "content-type": "application/json"}
        url, body = "http://replica/generate", encode_request.encode(request)
        async with self._session.post(url, data=body, headers=headers) as reply:
            async for line in reply.content:
                if usage := decode_event.decode(line).usage:
                    return usage.completion_tokens
        raise SystemExit("a reply ended early")


@contextmanager
def _busy(wanted: bool) -> Iterator[None]:
    """One process that keeps a core busy while this lasts."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if wanted else None
    try:
        yield
    finally:
        if process is not None:
            process.kill()
            process.wait()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model folder or GGUF file")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main())
