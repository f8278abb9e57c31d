"""How CTranslate2's requests are best put into batches that nothing can join: ways of doing it, on the engine alone.

Each way is measured in every round, in turn, on one loaded model: tokens/s of ten clients whose requests are alike, and
of ten whose prompts and lengths differ; how long the first token takes then; a short request behind a full batch and
beside half of one, against alone; and a burst that arrives one by one. No HTTP: that is `bench.engine_http`.
"""

import asyncio
import math
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from statistics import median

from bench.models import BenchModel, ensure_endless_smollm2
from bench.outcome import Arguments, Outcome, installed_version, parse_arguments, recording
from dockyard.engines.base import Row, Sampling
from dockyard.engines.cohorts import Cohorts, Pick, by_key
from dockyard.engines.ctranslate2 import CTranslate2Engine
from dockyard.engines.prefill import pick_alike, same_choice
from dockyard.protocols.generation import WorkerSpec

BATCH = 10
WORKERS = 2
NEVER = 1e9  # patience that does not end
GREEDY = Sampling(temperature=0)
SHORT = Row([1, 504, 3575, 282, 4649, 314], 8, GREEDY)  # "The capital of France is"


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


@dataclass(frozen=True)
class _Sizes:
    requests: int
    long: int


def _sizes(arguments: Arguments) -> _Sizes:
    return _Sizes(requests=10, long=24) if arguments.quick else _Sizes(requests=40, long=200)


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
    return WorkerSpec(
        replica_id="bench",
        token="bench",
        engine="ctranslate2",
        artifact_dir=str(model.ctranslate2),
        model_dir=str(model.folder),
        family="decoder",
        device="cpu",
        compute_type="int8_float32",
        max_batch_size=BATCH,
        context_length=None,
        threads=1,
        workers=WORKERS,
        eos_token_ids=[5],  # a token that a text never holds
    )


async def _measure(outcome: Outcome, number: int, engine: _Engine, way: Way, sizes: _Sizes) -> None:
    def add(metric: str, unit: str, sample: float) -> None:
        outcome.add(number, metric, unit, way.name, sample)
        print(f"round {number + 1} {way.name}: {metric} {sample:.2f} {unit}", flush=True)

    async with _arranged(engine, way) as run:
        await run(SHORT)
        for name, make in (("alike", _alike), ("mixed", _mixed)):
            done = await _clients(run, [make(index) for index in range(sizes.requests)])
            add(f"tokens/s, {name}", "tokens/s", done.tokens / done.seconds)
            add(f"CPU time of a token, {name}", "ms", 1000 * done.cpu_s / done.tokens)
            add(f"first token of 9 in 10, {name}", "s", done.firsts[int(0.9 * (len(done.firsts) - 1))])
        alone = median([await _timed(run, SHORT) for _ in range(3)])
        for name, rows in (("behind a full batch", BATCH), ("beside half a batch", BATCH // 2)):
            add(f"short {name} ÷ alone", "×", await _short_among(run, rows, sizes.long) / alone)
        add("burst of 10 in 10 ms", "s", await _burst(run))


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


def _alike(index: int) -> Row:
    chance = random.Random(index)
    return Row(_tokens(chance, chance.randint(6, 30)), 24, GREEDY)


def _mixed(index: int) -> Row:
    """Half of the prompts have 17 to 95 tokens; texts of 8 to 128, 48 on average."""
    chance = random.Random(index)
    length = min(400, max(6, round(chance.lognormvariate(math.log(40), 0.9))))
    return Row(_tokens(chance, length), min(128, max(8, round(chance.expovariate(1 / 45)))), GREEDY)


def _tokens(chance: random.Random, count: int) -> list[int]:
    return [chance.randrange(100, 40_000) for _ in range(count)]


@dataclass(frozen=True)
class _Done:
    """`cpu_s` tells ways apart even on a machine with other work; `firsts`: seconds to the first token, sorted."""

    tokens: int
    seconds: float
    cpu_s: float
    firsts: list[float]


async def _clients(run: _Run, rows: list[Row]) -> _Done:
    """BATCH clients that send one request after the other."""
    loop = asyncio.get_running_loop()
    queue = iter(rows)
    firsts: list[float] = []

    async def client() -> None:
        for row in queue:
            sent = loop.time()
            await run(row, lambda since=sent: firsts.append(loop.time() - since))

    began, used = loop.time(), time.process_time()
    await asyncio.gather(*(client() for _ in range(BATCH)))
    tokens = sum(row.max_new for row in rows)
    return _Done(tokens, loop.time() - began, time.process_time() - used, sorted(firsts))


async def _timed(run: _Run, row: Row) -> float:
    began = asyncio.get_running_loop().time()
    await run(row)
    return asyncio.get_running_loop().time() - began


async def _short_among(run: _Run, count: int, length: int) -> float:
    """Seconds of the short row, sent when each of the long ones has its first token; all are done afterwards."""
    begun = [asyncio.Event() for _ in range(count)]
    rows = [replace(_alike(index), max_new=length) for index in range(count)]
    async with asyncio.TaskGroup() as tasks:
        for row, event in zip(rows, begun, strict=True):
            tasks.create_task(run(row, event.set))
        for event in begun:
            await event.wait()
        return await _timed(run, SHORT)


async def _burst(run: _Run) -> float:
    """Seconds until ten rows of 32 tokens are done that come a millisecond apart."""
    began = asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as tasks:
        for index in range(BATCH):
            tasks.create_task(run(replace(_alike(index), max_new=32)))
            await asyncio.sleep(0.001)
    return asyncio.get_running_loop().time() - began


if __name__ == "__main__":
    main()
