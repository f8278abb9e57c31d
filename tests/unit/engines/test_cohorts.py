"""The cohort queue with a batch function that the test holds in its hands: no sleeps, no model."""

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from dockyard.engines.base import Generation, Row, Sampling
from dockyard.engines.cohorts import Cohorts, by_key
from dockyard.engines.lane import Outlet
from dockyard.errors import Failed, Reason

EOS = 0


@dataclass
class Steps:
    """A batch function that does what the test tells it: each order runs on the engine's thread."""

    batches: list[list[int]] = field(default_factory=list[list[int]])
    started: "queue.Queue[Outlet]" = field(default_factory=queue.Queue)
    orders: "queue.Queue[Callable[[Outlet], object] | None]" = field(default_factory=queue.Queue)
    results: "queue.Queue[object]" = field(default_factory=queue.Queue)

    def run_batch(self, rows: Sequence[Row], emit: Outlet) -> None:
        self.batches.append([row.prompt[0] for row in rows])
        self.started.put(emit)
        while (order := self.orders.get()) is not None:
            self.results.put(order(emit))

    async def until_started(self) -> None:
        await asyncio.to_thread(self.started.get)

    async def emit(self, index: int, token: int) -> bool:
        """A step of one token in the running batch; returns whether the row must stop."""

        def step(emit: Outlet) -> bool:
            stops = emit(index, token)
            emit.flush()
            return stops

        self.orders.put(step)
        return bool(await asyncio.to_thread(self.results.get))

    def finish(self) -> None:
        self.orders.put(None)


def cohorts_of(steps: Steps, **options: Any) -> Cohorts:
    """Batches of four, by sampling parameters."""
    defaults: dict[str, Any] = {
        "batch_size": 4,
        "eos_token_ids": frozenset({EOS}),
        "pick": by_key(lambda r: r.sampling),
    }
    return Cohorts(steps.run_batch, **(defaults | options))


@pytest.fixture
def steps() -> Steps:
    return Steps()


@pytest.fixture
async def cohorts(steps: Steps) -> AsyncIterator[Cohorts]:
    made = cohorts_of(steps)
    yield made
    steps.finish()
    made.close()


def row(name: int, *, temperature: float = 0.0, max_new: int = 8) -> Row:
    return Row([name], max_new, Sampling(temperature))


async def ids(generation: Generation) -> list[int]:
    return [token async for tokens in generation for token in tokens]


async def test_a_burst_starts_as_one_batch(cohorts: Cohorts, steps: Steps) -> None:
    for name in range(3):
        cohorts.submit(row(name))
    await steps.until_started()
    assert steps.batches == [[0, 1, 2]]
    assert (cohorts.running, cohorts.waiting) == (3, 0)


async def test_what_came_meanwhile_is_the_next_batch_up_to_the_capacity(cohorts: Cohorts, steps: Steps) -> None:
    cohorts.submit(row(0))
    await steps.until_started()
    for name in range(1, 7):
        cohorts.submit(row(name))
    assert cohorts.waiting == 6
    for _ in range(2):
        steps.finish()
        await steps.until_started()
    assert steps.batches == [[0], [1, 2, 3, 4], [5, 6]]
    assert cohorts.largest_batch == 4


async def test_the_longest_waiting_row_chooses_the_parameters(cohorts: Cohorts, steps: Steps) -> None:
    cohorts.submit(row(0))
    await steps.until_started()
    for name, temperature in ((1, 0.5), (2, 0.0), (3, 0.5), (4, 0.0), (5, 0.9)):
        cohorts.submit(row(name, temperature=temperature))
    for _ in range(3):
        steps.finish()
        await steps.until_started()
    assert steps.batches == [[0], [1, 3], [2, 4], [5]]


async def test_a_row_ends_at_its_own_limit_while_the_others_go_on(cohorts: Cohorts, steps: Steps) -> None:
    short, long = cohorts.submit(row(0, max_new=2)), cohorts.submit(row(1, max_new=3))
    await steps.until_started()
    assert not await steps.emit(0, 7)
    assert not await steps.emit(1, 8)
    assert await steps.emit(0, 9)
    assert await ids(short) == [7, 9]  # the batch still runs
    assert (cohorts.running, long.ended) == (1, False)


async def test_the_end_of_sequence_ends_a_row_and_is_told(cohorts: Cohorts, steps: Steps) -> None:
    generation = cohorts.submit(row(0))
    await steps.until_started()
    await steps.emit(0, 5)
    assert await steps.emit(0, EOS)
    assert await ids(generation) == [5, EOS]


async def test_after_a_batch_the_next_waits_for_as_many_rows() -> None:
    """A linger of an hour: only the number of rows can end it."""
    steps = Steps()
    cohorts = cohorts_of(steps, quiet_s=0, linger_s=3600)
    first = [cohorts.submit(row(name)) for name in (0, 1)]
    await steps.until_started()
    steps.finish()
    for generation in first:
        assert await ids(generation) == []
    cohorts.submit(row(2))
    await asyncio.sleep(0)  # a pass of the loop, in which an idle engine would start
    assert cohorts.waiting == 1
    cohorts.submit(row(3))
    await steps.until_started()
    assert steps.batches == [[0, 1], [2, 3]]
    steps.finish()
    cohorts.close()


async def test_after_a_batch_the_next_waits_for_all_who_were_here_together() -> None:
    """One started alone and three came meanwhile: without waiting for the first, batches of three and one in turn."""
    steps = Steps()
    cohorts = cohorts_of(steps, quiet_s=0, linger_s=3600)
    first = cohorts.submit(row(0))
    await steps.until_started()
    for name in (1, 2, 3):
        cohorts.submit(row(name))
    steps.finish()
    assert await ids(first) == []
    await asyncio.sleep(0)
    assert cohorts.waiting == 3
    cohorts.submit(row(4))
    await steps.until_started()
    assert steps.batches == [[0], [1, 2, 3, 4]]
    steps.finish()
    cohorts.close()


async def test_nobody_waits_for_rows_that_cannot_join() -> None:
    """An hour's linger again: the next row has other parameters than those that may come back."""
    steps = Steps()
    cohorts = cohorts_of(steps, linger_s=3600)
    for name in (0, 1):
        cohorts.submit(row(name))
    await steps.until_started()
    cohorts.submit(row(2, temperature=1.0))
    steps.finish()
    await steps.until_started()
    assert steps.batches == [[0, 1], [2]]
    steps.finish()
    cohorts.close()


async def test_lingering_ends_by_itself(cohorts: Cohorts, steps: Steps) -> None:
    """Two rows, then one that comes back alone."""
    for name in (0, 1):
        cohorts.submit(row(name))
    await steps.until_started()
    steps.finish()
    cohorts.submit(row(2))
    await steps.until_started()
    assert steps.batches == [[0, 1], [2]]


async def test_a_cancelled_row_stops_at_the_next_step(cohorts: Cohorts, steps: Steps) -> None:
    gone, stays = cohorts.submit(row(0)), cohorts.submit(row(1))
    await steps.until_started()
    assert not await steps.emit(0, 5)
    gone.cancel()
    assert await steps.emit(0, 6)
    assert not await steps.emit(1, 7)
    assert await anext(stays) == [7]
    assert cohorts.running == 1


async def test_a_cancelled_waiting_row_never_runs(cohorts: Cohorts, steps: Steps) -> None:
    cohorts.submit(row(0))
    await steps.until_started()
    gone = cohorts.submit(row(1))
    cohorts.submit(row(2))
    gone.cancel()
    assert cohorts.waiting == 1
    steps.finish()
    await steps.until_started()
    assert steps.batches == [[0], [2]]
    assert await ids(gone) == []


async def test_a_failing_batch_fails_its_rows_and_no_other(steps: Steps) -> None:
    cohorts = cohorts_of(steps, patience=1e9)  # nobody goes to the reserve, which would take the orders, too

    def fail(_: Outlet) -> None:
        raise RuntimeError("std::bad_alloc")

    ended, broken = cohorts.submit(row(0, max_new=1)), cohorts.submit(row(1))
    await steps.until_started()
    assert await steps.emit(0, 5)
    following = cohorts.submit(row(2, max_new=1))
    steps.orders.put(fail)
    with pytest.raises(Failed) as caught:
        await ids(broken)
    assert caught.value.reason is Reason.OUT_OF_MEMORY
    assert await ids(ended) == [5]
    await steps.until_started()
    assert await steps.emit(0, 6)
    assert await ids(following) == [6]
    steps.finish()
    cohorts.close()


async def test_tokens_made_while_the_loop_is_busy_come_together(cohorts: Cohorts, steps: Steps) -> None:
    generation = cohorts.submit(row(0))
    await steps.until_started()
    done = threading.Event()

    def three(emit: Outlet) -> None:
        for token in (5, 6, 7):
            emit(0, token)
            emit.flush()
        done.set()

    steps.orders.put(three)
    done.wait()  # the loop stands still here, on purpose
    assert await anext(generation) == [5, 6, 7]


async def test_closing_ends_everything() -> None:
    steps = Steps()
    cohorts = cohorts_of(steps, batch_size=1)
    running, waiting = cohorts.submit(row(0)), cohorts.submit(row(1))
    await steps.until_started()
    steps.finish()
    cohorts.close()
    assert await ids(running) == []
    assert await ids(waiting) == []


async def test_a_burst_that_arrives_one_by_one_starts_as_one_batch() -> None:
    """Nothing of an hour is quiet: only the number of rows can end the gathering."""
    steps = Steps()
    cohorts = cohorts_of(steps, quiet_s=3600)
    cohorts.submit(row(0))
    for name in (1, 2, 3):
        await asyncio.sleep(0)
        cohorts.submit(row(name))
    await steps.until_started()
    assert steps.batches == [[0, 1, 2, 3]]
    steps.finish()
    cohorts.close()


async def test_rows_that_never_stop_coming_do_not_hold_the_first_one_back() -> None:
    """The gathering has a ceiling, however long the quiet that it waits for."""
    steps = Steps()
    cohorts = cohorts_of(steps, quiet_s=3600)
    cohorts.submit(row(0))
    await steps.until_started()
    assert steps.batches == [[0]]
    steps.finish()
    cohorts.close()


async def test_whoever_comes_next_starts_on_the_other_lane() -> None:
    steps = Steps()
    cohorts = cohorts_of(steps, lanes=2)
    for name in range(3):
        cohorts.submit(row(name))
    await steps.until_started()
    cohorts.submit(row(3))
    await steps.until_started()
    assert steps.batches == [[0, 1, 2], [3]]
    assert (cohorts.running, cohorts.waiting, cohorts.largest_batch) == (4, 0, 3)
    end_all(steps, cohorts)


async def test_a_full_batch_spreads_over_all_lanes() -> None:
    """Of fewer rows one lane stays free for who comes next."""
    for rows, shares in ((4, [2, 2]), (7, [4, 3]), (3, [3])):
        steps = Steps()
        cohorts = cohorts_of(steps, lanes=2)
        for name in range(rows):
            cohorts.submit(row(name))
        for _ in shares:
            await steps.until_started()
        assert sorted(map(len, steps.batches), reverse=True) == shares
        assert cohorts.waiting == 0
        end_all(steps, cohorts)


async def test_rows_of_other_parameters_start_on_the_free_lane_at_once() -> None:
    steps = Steps()
    cohorts = cohorts_of(steps, lanes=2)
    for name, temperature in ((0, 0.0), (1, 1.0), (2, 0.0)):
        cohorts.submit(row(name, temperature=temperature))
    for _ in range(2):
        await steps.until_started()
    assert sorted(steps.batches) == [[0, 2], [1]]
    end_all(steps, cohorts)


async def test_no_parameters_are_starved_by_others_that_keep_coming(cohorts: Cohorts, steps: Steps) -> None:
    """The engine is never idle and rows of one kind always wait; the other kind's turn is by its age."""
    for name in range(4):
        cohorts.submit(row(name, max_new=100_000))
    await steps.until_started()
    cohorts.submit(row(4, max_new=100_000))
    cohorts.submit(row(5, temperature=1.0, max_new=100_000))
    for first in (6, 10, 14):
        for name in range(first, first + 4):
            cohorts.submit(row(name, max_new=100_000))
        steps.finish()
        await steps.until_started()
    assert steps.batches == [[0, 1, 2, 3], [4, 6, 7, 8], [5], [9, 10, 11, 12]]


async def test_a_short_row_behind_long_ones_goes_to_the_reserve() -> None:
    """What waits without patience, at a pace of nothing, is the short one; the longer one waits for its turn."""
    steps = Steps()
    cohorts = cohorts_of(steps, patience=1e-6)
    for name in range(4):
        cohorts.submit(row(name))
    await steps.until_started()
    cohorts.submit(row(4, max_new=10**12))
    short = cohorts.submit(row(5, max_new=1))
    await steps.until_started()
    assert steps.batches == [[0, 1, 2, 3], [5]]
    assert (cohorts.running, cohorts.waiting) == (5, 1)
    assert not short.ended
    end_all(steps, cohorts)


async def test_the_reserve_takes_a_quarter_of_a_batch_and_then_the_next() -> None:
    steps = Steps()
    cohorts = cohorts_of(steps, patience=0, batch_size=8)
    for name in range(8):
        cohorts.submit(row(name))
    await steps.until_started()
    for name in range(8, 11):
        cohorts.submit(row(name))
    await steps.until_started()
    assert steps.batches[1:] == [[8, 9]]
    assert cohorts.waiting == 1
    end_all(steps, cohorts)


def end_all(steps: Steps, cohorts: Cohorts) -> None:
    """Let whatever runs go, and end it."""
    for _ in range(cohorts.running + cohorts.waiting):
        steps.finish()
    cohorts.close()
