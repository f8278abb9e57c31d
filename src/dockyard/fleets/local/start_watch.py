"""Whether a starting replica still comes further, or hangs."""

from dockyard.clock import Clock
from dockyard.protocols.generation import Health

SERVING = ("ready", "draining")


class StartWatch:
    """A start may take as long as it likes, while what the replica tells of it changes every `patience_s`."""

    def __init__(self, clock: Clock, patience_s: float, health: Health | None = None) -> None:
        self._clock = clock
        self._patience_s = patience_s
        self._health = health
        self._since = clock.monotonic()

    def take(self, health: Health) -> None:
        before, self._health = self._health, health
        if before is None or _step(before) != _step(health):
            self._since = self._clock.monotonic()

    def left_s(self) -> float | None:
        """How long it may still stay at this step; None once it serves."""
        if self._health is not None and self._health.phase in SERVING:
            return None
        return self._since + self._patience_s - self._clock.monotonic()

    def told(self) -> str:
        """What is said of a replica that was killed because no time was left."""
        return (
            f"the replica hung while {_doing(self._health)}: it came no step further for {self._patience_s:g} s and "
            "was killed. If the model only loads slowly, have the server wait longer (DOCKYARD_START_TIMEOUT_S); else "
            "the last lines of its log tell more"
        )


def _step(health: Health) -> tuple[str, str, float]:
    return health.phase, health.progress, health.share


def _doing(health: Health | None) -> str:
    if health is None:
        return "starting"
    told = ", ".join(filter(None, (health.progress, f"{health.share:.0%} done" if health.share else "")))
    return health.phase.replace("_", " ") + (f" ({told})" if told else "")
