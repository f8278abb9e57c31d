"""How fast a queue moves: what an honest `Retry-After` is made of. Time is an argument."""

import math
from collections import deque

WINDOW = 64  # departures that are looked back on: recent enough to see a replica come or go


class Departures:
    """Counts those who leave a queue, served or not, on a clock that stands still while nobody waits.

    So an idle hour does not count as an hour in which the queue did not move.
    """

    def __init__(self) -> None:
        self._busy_s = 0.0  # the clock, up to when somebody last began to wait
        self._since: float | None = None
        self._at: deque[float] = deque([0.0], maxlen=WINDOW + 1)  # by that clock; the first begins the window

    def begin(self, now: float) -> None:
        """Somebody waits from `now` on."""
        if self._since is None:
            self._since = now

    def count(self, now: float, *, left: int) -> None:
        """One has left the queue; `left` are still in it."""
        self._at.append(self._clock(now))
        if not left:
            self._busy_s = self._clock(now)
            self._since = None

    def retry_after_s(self, now: float, waiting: int, longest_s: int) -> int:
        """Whole seconds, at least 1, until `waiting` requests have left at the recent rate.

        64 that left within 8 s are 8 a second; 40 that wait take 5 s. While none has left yet, as long again as the
        queue has stood. At most `longest_s`, by when everybody who waits now has been answered or told that it took
        too long.
        """
        counted = len(self._at) - 1
        elapsed_s = self._clock(now) - self._at[0]
        expected_s = elapsed_s * waiting / counted if counted else elapsed_s
        return max(1, min(longest_s, math.ceil(expected_s)))

    def _clock(self, now: float) -> float:
        return self._busy_s + (now - self._since if self._since is not None else 0.0)
