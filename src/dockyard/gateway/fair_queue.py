"""Who waits for a place of one deployment, and who is next: fair between keys, whatever each of them sends."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from typing import Generic, TypeVar

_P = TypeVar("_P")


class Waiter(Generic[_P]):
    """A request that waits. `place` gets what it waits for, or why there is nothing to wait for."""

    __slots__ = ("key_id", "place")

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        self.place: asyncio.Future[_P] = asyncio.get_running_loop().create_future()


class FairQueue(Generic[_P]):
    """One line per key. Next is the first in the line of the key that has the fewest requests running.

    What is scarce is a place in a batch for as long as a generation takes, so keys are made equal in the places they
    hold: plain round robin would give a key whose generations take ten times as long ten times as much. Of keys that
    hold equally many, the one that longest ago got a place or gave one back is next, which is round robin. So a key
    that holds all places yields the next one, a request of an idle key waits for one place to come free and not for the
    thousand in another line, and within a line it is first come, first served.

    Requests that lost their replica go before all of these: they have waited already, and a client may be in the
    middle of a stream.
    """

    def __init__(self) -> None:
        self._lines: OrderedDict[str, OrderedDict[Waiter[_P], None]] = OrderedDict()  # longest without a place first
        self._returning: OrderedDict[Waiter[_P], None] = OrderedDict()
        self._in_lines = 0

    def __len__(self) -> int:
        return self._in_lines + len(self._returning)

    def has_room(self, key_id: str, limit: int) -> bool:
        """Whether one more request of the key may wait: the queue is not full, or the key has less than its share.

        No key can shut others out by filling the queue, and nobody who waits is pushed out for it. The price is a bound
        that gives: one key alone waits with `limit` requests at most, k keys which all flood with no more than
        `limit` × (1 + 1/2 + … + 1/k) and one each; for four keys that is twice the limit.
        """
        if self._in_lines < limit:
            return True
        line = self._lines.get(key_id)
        keys = len(self._lines) + (line is None)
        return self.waiting_of(key_id) * keys < limit

    def waiting_of(self, key_id: str) -> int:
        return len(self._lines.get(key_id, ()))

    def join(self, waiter: Waiter[_P]) -> None:
        self._lines.setdefault(waiter.key_id, OrderedDict())[waiter] = None
        self._in_lines += 1

    def rejoin(self, waiter: Waiter[_P]) -> None:
        """For one that lost its replica: before all others, behind those that lost theirs before. There is no bound."""
        self._returning[waiter] = None

    def pop(self, running: Mapping[str, int]) -> Waiter[_P]:
        """The next, taken out. `running`: how many requests of each key run now; a key that is absent has none."""
        if self._returning:
            return self._returning.popitem(last=False)[0]
        key_id = self._next_key(running)
        waiter = next(iter(self._lines[key_id]))
        self.had_place(key_id)
        self._take_out(waiter)
        return waiter

    def had_place(self, key_id: str) -> None:
        """The key gave a place back: others that hold no more go first."""
        if key_id in self._lines:
            self._lines.move_to_end(key_id)

    def remove(self, waiter: Waiter[_P]) -> bool:
        """Take out one that waits no longer. Whether it was still there."""
        if waiter in self._returning:
            del self._returning[waiter]
            return True
        if waiter in self._lines.get(waiter.key_id, ()):
            self._take_out(waiter)
            return True
        return False

    def clear(self) -> tuple[list[Waiter[_P]], list[Waiter[_P]]]:
        """Take everybody out: those that lost their replica, and all others."""
        gone = list(self._returning), [waiter for line in self._lines.values() for waiter in line]
        self._returning.clear()
        self._lines.clear()
        self._in_lines = 0
        return gone

    def _next_key(self, running: Mapping[str, int]) -> str:
        idle = next((key_id for key_id in self._lines if key_id not in running), None)
        # None is idle: then there are no more of them than there are places.
        return idle if idle is not None else min(self._lines, key=running.__getitem__)

    def _take_out(self, waiter: Waiter[_P]) -> None:
        line = self._lines[waiter.key_id]
        del line[waiter]
        if not line:
            del self._lines[waiter.key_id]
        self._in_lines -= 1
