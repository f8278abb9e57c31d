"""The only place that reads the time. Everything else is handed a `Clock` or an instant."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The wall clock: an aware instant in UTC, for what is stored and shown."""
        ...

    def monotonic(self) -> float:
        """Seconds that never jump, for delays and deadlines."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()
