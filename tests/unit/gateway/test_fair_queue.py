"""Whose turn it is, and who may still wait, as tables and for any arrivals."""

import asyncio
from collections import Counter, deque
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from dockyard.gateway.fair_queue import FairQueue, Waiter

KEYS = st.sampled_from("abcd")


async def test_a_line_is_first_come_first_served() -> None:
    queue, waiters = _queue("aaa")
    assert [queue.pop({}) for _ in range(3)] == waiters
    assert len(queue) == 0


async def test_keys_take_turns_however_many_wait_with_one() -> None:
    queue, _ = _queue("a" * 1000 + "b" + "cc")
    assert "".join(queue.pop({}).key_id for _ in range(6)) == "abcaca"


async def test_the_key_with_the_fewest_running_goes_first() -> None:
    queue, _ = _queue("aabbcc")
    assert queue.pop({"a": 3, "b": 1, "c": 2}).key_id == "b"
    assert queue.pop({"a": 3, "b": 2, "c": 2}).key_id == "c"  # b's turn was later
    assert queue.pop({"a": 3, "b": 2}).key_id == "c"  # none runs


async def test_a_key_that_gave_its_place_back_goes_behind_the_others() -> None:
    queue, _ = _queue("aab")
    queue.had_place("a")
    queue.had_place("never heard of")
    assert "".join(queue.pop({}).key_id for _ in range(3)) == "baa"


async def test_places_are_shared_not_starts() -> None:
    """Generations of `a` take ten steps, those of `b` one: each holds two of four places, `b` starts ten times more."""
    queue, _ = _queue("a" * 100 + "b" * 100)
    running: deque[tuple[int, str]] = deque()
    held: Counter[str] = Counter()
    started: Counter[str] = Counter()
    for step in range(30):
        running = deque((ends, key) for ends, key in running if ends > step)
        while len(running) < 4:
            key = queue.pop(Counter(key for _, key in running)).key_id
            running.append((step + (10 if key == "a" else 1), key))
            started[key] += 1
        held.update(key for _, key in running)
    assert held == {"a": 60, "b": 60}
    assert started == {"a": 6, "b": 60}


async def test_those_who_lost_their_replica_go_before_all_in_the_order_of_their_loss() -> None:
    queue, _ = _queue("bb")
    lost = [Waiter[int]("a"), Waiter[int]("a")]
    for waiter in lost:
        queue.rejoin(waiter)
    assert [queue.pop({"a": 9}) for _ in range(2)] == lost
    assert queue.pop({}).key_id == "b"


async def test_one_that_leaves_is_gone_and_moves_nobody() -> None:
    queue, (first, second, third) = _queue("aab")
    lost = Waiter[int]("c")
    queue.rejoin(lost)
    assert queue.remove(first)
    assert not queue.remove(first)
    assert queue.remove(lost)
    assert not queue.remove(lost)
    assert [queue.pop({}), queue.pop({})] == [second, third]
    assert not queue.remove(third)


async def test_one_key_alone_has_the_whole_queue_and_not_more() -> None:
    queue, _ = _queue("a" * 10)
    assert not queue.has_room("a", 10)
    assert queue.has_room("a", 11)
    assert not FairQueue[int]().has_room("a", 0)


async def test_a_full_queue_has_room_for_a_key_below_its_equal_share() -> None:
    queue, _ = _queue("a" * 10)
    for _ in range(5):
        assert queue.has_room("b", 10)
        queue.join(Waiter("b"))
    assert not queue.has_room("b", 10)
    assert not queue.has_room("a", 10)
    assert queue.has_room("c", 10)


@given(arrivals=st.lists(st.one_of(KEYS, st.just("-")), max_size=300), limit=st.integers(0, 20))
@settings(deadline=None)
def test_the_bound_gives_by_no_more_than_the_shares_of_those_who_came_late(arrivals: list[str], limit: int) -> None:
    """`-` serves the next."""

    async def run() -> None:
        queue: FairQueue[int] = FairQueue()
        for key in arrivals:
            if key == "-":
                if queue:
                    queue.pop({})
            elif queue.has_room(key, limit):
                queue.join(Waiter(key))
            else:
                assert queue.waiting_of(key) >= Fraction(limit, 4)  # never refused below its share
            keys = sum(1 for name in "abcd" if queue.waiting_of(name))
            assert len(queue) <= sum(Fraction(limit, rank) + 1 for rank in range(1, keys + 1))

    asyncio.run(run())


@given(sent=st.dictionaries(KEYS, st.integers(1, 40), min_size=2), places=st.integers(1, 6))
@settings(deadline=None)
def test_no_key_holds_more_than_one_place_beyond_another_that_waits(sent: dict[str, int], places: int) -> None:
    """All generations take equally long, and everybody comes at once."""

    async def run() -> None:
        queue, _ = _queue("".join(key * count for key, count in sent.items()))
        running: deque[str] = deque()
        while queue:
            if len(running) == places:
                running.popleft()
            running.append(queue.pop(Counter(running)).key_id)
            held = Counter(running)
            for key in sent:
                if queue.waiting_of(key):
                    assert max(held.values()) <= held[key] + 1

    asyncio.run(run())


def _queue(keys: str) -> tuple[FairQueue[int], list[Waiter[int]]]:
    queue: FairQueue[int] = FairQueue()
    waiters = [Waiter[int](key) for key in keys]
    for waiter in waiters:
        queue.join(waiter)
    return queue, waiters
