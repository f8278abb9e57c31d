"""Who sits in the running batch, with a model whose steps the test holds in its hands: no sleeps."""

import asyncio
import queue
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import pytest

from dockyard.engines.base import Generation, Row, Sampling
from dockyard.engines.continuous import Continuous, Seat
from dockyard.errors import Failed, Reason

EOS = 0
Order = Callable[[], None]


@dataclass
class Steps:
    """Computes nothing: each step does what the test orders. `clock` goes on by as much as the test says.
    `alone`: no prompt is read.
    """

    seats: list[Seat] = field(default_factory=list[Seat])
    clock: float = 0.0
    alone: bool = True
    begun: "queue.Queue[list[int]]" = field(default_factory=queue.Queue)
    orders: "queue.Queue[Order | None]" = field(default_factory=queue.Queue)
    done: "queue.Queue[None]" = field(default_factory=queue.Queue)

    def join(self, seats: Sequence[Seat]) -> None:
        self.seats += seats

    def step(self) -> bool:
        self.begun.put([name_of(seat) for seat in self.seats])
        order = self.orders.get()
        try:
            if order is None:  # from here on, whoever is cancelled goes
                self.orders.put(None)
                for seat in self.seats:
                    if seat.cancelled:
                        seat.end()
            else:
                order()
        finally:
            self.seats = [seat for seat in self.seats if not seat.ended]
            self.done.put(None)
        return self.alone

    def clear(self) -> None:
        self.seats = []

    async def began(self) -> list[int]:
        """Whom the next step has."""
        return await asyncio.to_thread(self.begun.get)

    async def go(self, *, token: int = 7, takes_s: float = 0.0, error: BaseException | None = None) -> None:
        """End the step that has begun: each row gets this token, or the step fails."""

        def order() -> None:
            self.clock += takes_s
            if error is not None:
                raise error
            for seat in self.seats:
                seat.take(token)

        self.orders.put(order)
        await asyncio.to_thread(self.done.get)


class Panic(BaseException):
    """As a library in Rust raises it."""


def name_of(seat: Seat) -> int:
    return seat.row.prompt[0]


@pytest.fixture
def steps() -> Steps:
    return Steps()


@pytest.fixture
async def batches(steps: Steps) -> AsyncIterator[Continuous]:
    """Two seats and an extra one. Whatever runs when a test ends is let go."""
    made = Continuous(steps, batch_size=2, extra=1, eos_token_ids=frozenset({EOS}), now=lambda: steps.clock)
    yield made
    steps.orders.put(None)
    made.close()


def row(name: int, max_new: int = 8) -> Row:
    return Row([name], max_new, Sampling())


async def ids(generation: Generation) -> list[int]:
    return [token async for tokens in generation for token in tokens]


async def test_a_row_joins_those_that_run_at_their_next_step(batches: Continuous, steps: Steps) -> None:
    batches.submit(row(1))
    assert await steps.began() == [1]
    batches.submit(row(2))
    assert (batches.running, batches.waiting) == (1, 1)
    await steps.go()
    assert await steps.began() == [1, 2]
    assert (batches.running, batches.waiting, batches.largest_batch) == (2, 0, 2)


async def test_a_seat_is_free_as_soon_as_its_row_has_ended(batches: Continuous, steps: Steps) -> None:
    """At its limit, at its end of sequence, and when nobody wants it any more."""
    short = batches.submit(row(1, 1))
    await steps.began()
    others = [batches.submit(row(name)) for name in (2, 3, 4)]
    await steps.go()
    assert await ids(short) == [7]
    assert await steps.began() == [2, 3]
    others[0].cancel()
    await steps.go()
    assert await steps.began() == [3, 4]
    await steps.go(token=EOS)
    assert await asyncio.gather(*map(ids, others[1:])) == [[7, EOS], [EOS]]
    assert (batches.running, batches.waiting) == (0, 0)


async def test_the_first_to_come_is_the_first_to_sit(batches: Continuous, steps: Steps) -> None:
    batches.submit(row(1, 1))
    await steps.began()
    for name in (2, 3, 4, 5):
        batches.submit(row(name, 1))
    seen: list[list[int]] = []
    for _ in range(2):
        await steps.go()
        seen.append(await steps.began())
    assert seen == [[2, 3], [4, 5]]
    assert batches.largest_batch == 2


async def test_a_row_that_waits_long_for_what_it_is_gets_the_extra_seat(batches: Continuous, steps: Steps) -> None:
    """A step takes a second. The long row would take 100 s, so 40 s are nothing to it; the short one has 2 to make."""
    for name in (1, 2, 3, 4, 5):
        batches.submit(row(name, 2 if name in (4, 5) else 100))
    seen: list[list[int]] = []
    for _ in range(40):
        seen.append(await steps.began())
        await steps.go(takes_s=1.0)
    first = next(names for names in seen if len(names) > 2)
    assert first == [1, 2, 4]
    assert max(map(len, seen)) == 3
    assert seen.index([1, 2, 5]) == seen.index([1, 2, 4]) + 2
    assert batches.largest_batch == 2  # the extra seat is no part of it
    assert await steps.began() == [1, 2]
    assert batches.waiting == 1


async def test_steps_that_read_prompts_do_not_make_the_pace_slow(batches: Continuous, steps: Steps) -> None:
    """A prompt takes 100 s, a token one."""
    for name in (1, 2, 3):
        batches.submit(row(name, 10 if name == 3 else 100))
    steps.alone = False
    for _ in range(2):
        await steps.began()
        await steps.go(takes_s=100.0)
    steps.alone = True
    assert await steps.began() == [1, 2, 3]


@pytest.mark.parametrize("error", [RuntimeError("no memory for that"), Panic("no memory for that")])
async def test_a_step_that_fails_ends_those_who_sat_and_no_other(
    batches: Continuous, steps: Steps, error: BaseException
) -> None:
    gone = [batches.submit(row(name)) for name in (1, 2)]
    while len(await steps.began()) < 2:
        await steps.go()
    later = batches.submit(row(3, 1))
    await steps.go(error=error)
    for generation in gone:
        with pytest.raises(Failed, match="no memory for that") as caught:
            await ids(generation)
        assert caught.value.reason is Reason.ENGINE_FAILED
    assert await steps.began() == [3]
    await steps.go()
    assert await ids(later) == [7]


async def test_one_seat_may_fail_alone(batches: Continuous, steps: Steps) -> None:
    failed, other = batches.submit(row(1)), batches.submit(row(2, 1))
    while len(await steps.began()) < 2:
        await steps.go()
    steps.seats[0].end(Failed("its prompt cannot be read"))
    await steps.go()
    with pytest.raises(Failed, match="cannot be read"):
        await ids(failed)
    assert (await ids(other))[-1] == 7


async def test_closing_cancels_who_runs_and_who_waits() -> None:
    steps = Steps()
    batches = Continuous(steps, batch_size=1, extra=0, eos_token_ids=frozenset({EOS}))
    generations = [batches.submit(row(name)) for name in (1, 2)]
    await steps.began()
    steps.orders.put(None)
    batches.close()
    assert [generation.ended for generation in generations] == [True, True]
    assert await asyncio.gather(*map(ids, generations)) == [[], []]
    late = batches.submit(row(3))
    assert (late.ended, batches.waiting) == (True, 0)
