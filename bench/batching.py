"""How CTranslate2's requests are best put into batches that nothing can join: ways of doing it, on the engine alone.

Each way is measured in every round, in turn, on one loaded model: tokens/s of ten clients whose requests are alike, and
of ten whose prompts and lengths differ; how long the first token takes then; a short request behind a full batch and
beside half of one, against alone; and a burst that arrives one by one. No HTTP: that is `bench.engine_http`.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from bench.models import BenchModel, ensure_endless_smollm2
from bench.outcome import Arguments, Outcome, installed_version, parse_arguments, recording
from bench.replicas import worker_spec
from bench.rows import BATCH, Sizes, measure
from dockyard.engines.base import Row
from dockyard.engines.cohorts import Cohorts, Pick, by_key
from dockyard.engines.ctranslate2 import CTranslate2Engine
from dockyard.engines.prefill import pick_alike, same_choice
from dockyard.protocols.generation import WorkerSpec

WORKERS = 2
NEVER = 1e9  # patience that does not end


@dataclass(frozen=True)
class Way:
    """`chunk`: every so many tokens a row leaves its batch and comes back with what it has as its prompt."""

    name: str
    lanes: int = 1
    pick: Pick = pick_alike
    patience: float = 2.0
    quiet_s: float = 0.002
    chunk: int | None = None


ANY_LENGTH = by_key(same_choice)
BEFORE = "one batch, any lengths"
WAYS = (
    Way(BEFORE, pick=ANY_LENGTH, patience=NEVER, quiet_s=0.0),
    Way("one batch, alike in length", patience=NEVER),
    Way("chunks of 16 tokens", patience=NEVER, chunk=16),
    Way("one batch and the reserve"),
    Way("two batches", lanes=2, patience=NEVER),
    Way("two batches and the reserve", lanes=2),
)


def main() -> None:
    arguments = parse_arguments(__doc__, rounds=3)
    question = "Tokens/s and delays of ways to form CTranslate2's batches; SmolLM2-135M int8, one thread a batch"
    with recording(arguments, "batching", "How batches are formed", question) as outcome:
        outcome.versions["ctranslate2"] = installed_version("ctranslate2")
        engine = _Engine(_spec(ensure_endless_smollm2()))
        engine.load()
        for number in range(arguments.rounds):
            for way in WAYS:
                asyncio.run(_measure(outcome, number, engine, way, _sizes(arguments)))
        for metric in {row.metric: None for row in outcome.rows}:
            for way in WAYS[1:]:
                better = "higher" if metric.startswith("tokens/s") else "lower"
                outcome.compare(metric, way.name, BEFORE, better)
    os._exit(0)  # the library's threads are not to be waited for


def _sizes(arguments: Arguments) -> Sizes:
    return Sizes(requests=10, long=24) if arguments.quick else Sizes(requests=40, long=200)


class _Engine(CTranslate2Engine):
    """Loaded once, with batches formed in any of the ways."""

    def arranged(self, way: Way) -> Cohorts:
        return Cohorts(
            self._generate,
            batch_size=BATCH,
            eos_token_ids=self.eos_token_ids,
            pick=way.pick,
            lanes=way.lanes,
            quiet_s=way.quiet_s,
            patience=way.patience,
        )


def _spec(model: BenchModel) -> WorkerSpec:
    return worker_spec(
        "ctranslate2",
        model.ctranslate2,
        model.folder,
        batch=BATCH,
        threads=1,
        workers=WORKERS,
        context_length=None,
        eos_token_ids=[5],  # a token that a text never holds
    )


async def _measure(outcome: Outcome, number: int, engine: _Engine, way: Way, sizes: Sizes) -> None:
    def add(metric: str, unit: str, sample: float) -> None:
        outcome.add(number, metric, unit, way.name, sample)
        print(f"round {number + 1} {way.name}: {metric} {sample:.2f} {unit}", flush=True)

    async with _arranged(engine, way) as run:
        await measure(run, sizes, add)


class _Run:
    """Runs a row to its end; notes when its first token came."""

    def __init__(self, cohorts: Cohorts, chunk: int | None) -> None:
        self._cohorts = cohorts
        self._chunk = chunk

    async def __call__(self, row: Row, on_first: Callable[[], None] = lambda: None) -> None:
        ids: list[int] = []
        while len(ids) < row.max_new:
            left = row.max_new - len(ids)
            part = replace(row, prompt=[*row.prompt, *ids], max_new=min(left, self._chunk or left))
            async for new in self._cohorts.submit(part):
                if not ids:
                    on_first()
                ids += new


@asynccontextmanager
async def _arranged(engine: _Engine, way: Way) -> AsyncIterator[_Run]:
    cohorts = engine.arranged(way)
    try:
        yield _Run(cohorts, way.chunk)
    finally:
        cohorts.close()


if __name__ == "__main__":
    main()
