"""A replica as the gateway sees it: how much runs on it, and whether it failed a moment ago."""

import asyncio

from dockyard.clock import Clock
from dockyard.protocols.routing import RouteReplica

BACK_OFF_FLOOR_S = 0.05
BACK_OFF_CEILING_S = 1.0


class Slot:
    """One replica's places.

    After a failure it is `aside`: not chosen at all until `retry_at`, then one request at a time may try it, and only
    when no sound replica has room. The first request that it accepts brings it back.
    """

    __slots__ = ("aside", "idle", "in_flight", "replica", "retry_at", "routed", "strikes", "turn")

    def __init__(self, replica: RouteReplica) -> None:
        self.replica = replica
        self.in_flight = 0
        self.routed = True
        self.turn = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self.aside = False
        self.strikes = 0
        self.retry_at = 0.0

    @property
    def rank(self) -> tuple[bool, float, int]:
        """The smaller, the sooner chosen."""
        return self.aside, self.in_flight / self.replica.capacity, self.turn

    def enter(self, turn: int, clock: Clock) -> None:
        self.in_flight += 1
        self.turn = turn
        self.idle.clear()
        if self.aside:
            self.retry_at = clock.monotonic() + _back_off_s(self.strikes)

    def leave(self) -> None:
        self.in_flight -= 1
        if not self.in_flight:
            self.idle.set()

    def put_aside(self, now: float, *, seen: int) -> None:
        """`seen`: the strikes when the failed request was placed, so that ten broken at once count as one failure."""
        if seen == self.strikes:
            self.strikes += 1
        self.aside = True
        self.retry_at = now + _back_off_s(self.strikes)

    def forgive(self) -> None:
        self.aside = False
        self.strikes = 0


def _back_off_s(strikes: int) -> float:
    """0.05 s after the first failure in a row, then 0.1, 0.2 … 1."""
    return min(BACK_OFF_CEILING_S, BACK_OFF_FLOOR_S * 2.0 ** min(max(strikes - 1, 0), 10))
