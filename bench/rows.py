"""Requests for an engine alone, without HTTP, and how they are timed: throughput, delays, short ones among long."""

import asyncio
import math
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Protocol

from dockyard.engines.base import Row, Sampling

BATCH = 10
GREEDY = Sampling(temperature=0)
SHORT = Row([1, 504, 3575, 282, 4649, 314], 8, GREEDY)  # "The capital of France is"


class Run(Protocol):
    """Runs a row to its end; `on_first` is called when its first token comes."""

    def __call__(self, row: Row, on_first: Callable[[], None] = ...) -> Coroutine[Any, Any, None]: ...


@dataclass(frozen=True)
class Sizes:
    """How many requests the clients send, and how many tokens a long one makes."""

    requests: int
    long: int


async def measure(run: Run, sizes: Sizes, add: Callable[[str, str, float], None]) -> None:
    """All of it once; `add` gets metric, unit and sample."""
    await run(SHORT)
    for name, make in (("alike", alike), ("mixed", mixed)):
        done = await clients(run, [make(index) for index in range(sizes.requests)])
        add(f"tokens/s, {name}", "tokens/s", done.tokens / done.seconds)
        add(f"CPU time of a token, {name}", "ms", 1000 * done.cpu_s / done.tokens)
        add(f"first token of 9 in 10, {name}", "s", done.firsts[int(0.9 * (len(done.firsts) - 1))])
    alone = median([await timed(run, SHORT) for _ in range(3)])
    for name, count in (("behind a full batch", BATCH), ("beside half a batch", BATCH // 2)):
        add(f"short {name} ÷ alone", "×", await short_among(run, count, sizes.long) / alone)
    add("burst of 10 in 10 ms", "s", await burst(run))


def alike(index: int) -> Row:
    chance = random.Random(index)
    return Row(tokens(chance, chance.randint(6, 30)), 24, GREEDY)


def mixed(index: int) -> Row:
    """Half of the prompts have 17 to 95 tokens; texts of 8 to 128, 48 on average."""
    chance = random.Random(index)
    length = min(400, max(6, round(chance.lognormvariate(math.log(40), 0.9))))
    return Row(tokens(chance, length), min(128, max(8, round(chance.expovariate(1 / 45)))), GREEDY)


def tokens(chance: random.Random, count: int) -> list[int]:
    return [chance.randrange(100, 40_000) for _ in range(count)]


@dataclass(frozen=True)
class Done:
    """`cpu_s` tells ways apart even on a machine with other work; `firsts`: seconds to the first token, sorted."""

    tokens: int
    seconds: float
    cpu_s: float
    firsts: list[float]


async def clients(run: Run, rows: list[Row]) -> Done:
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
    return Done(tokens, loop.time() - began, time.process_time() - used, sorted(firsts))


async def timed(run: Run, row: Row) -> float:
    began = asyncio.get_running_loop().time()
    await run(row)
    return asyncio.get_running_loop().time() - began


async def short_among(run: Run, count: int, length: int) -> float:
    """Seconds of the short row, sent when each of the long ones has its first token; all are done afterwards."""
    begun = [asyncio.Event() for _ in range(count)]
    rows = [replace(alike(index), max_new=length) for index in range(count)]
    async with asyncio.TaskGroup() as tasks:
        for row, event in zip(rows, begun, strict=True):
            tasks.create_task(run(row, event.set))
        for event in begun:
            await event.wait()
        return await timed(run, SHORT)


async def burst(run: Run) -> float:
    """Seconds until ten rows of 32 tokens are done that come a millisecond apart."""
    began = asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as tasks:
        for index in range(BATCH):
            tasks.create_task(run(replace(alike(index), max_new=32)))
            await asyncio.sleep(0.001)
    return asyncio.get_running_loop().time() - began
