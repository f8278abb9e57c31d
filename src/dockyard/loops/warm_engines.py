"""Which engines are kept warm: those in use, and for a while those that were; who undeploys often deploys again."""

from collections.abc import Collection, Iterable, Sequence

from dockyard.clock import Clock

WARM_FOR_S = 600.0  # an engine that no deployment uses any more


class WarmEngines:
    """Told which engines each deployment uses."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._engines: dict[str, frozenset[str]] = {}  # deployment → the engines of its live versions
        self._used_at: dict[str, float] = {}  # engine → when a live version last had it, on the monotonic clock

    def note(self, deployment_id: str, engines: Iterable[str]) -> None:
        """The deployment's live versions use these now."""
        self._engines[deployment_id] = frozenset(engines)

    def keep_only(self, deployment_ids: Collection[str]) -> None:
        self._engines = {known: engines for known, engines in self._engines.items() if known in deployment_ids}

    def now(self) -> Sequence[str]:
        """The engines to keep warm."""
        now = self._clock.monotonic()
        self._used_at |= dict.fromkeys(frozenset().union(*self._engines.values()), now)
        return [engine for engine, at in self._used_at.items() if now - at < WARM_FOR_S]
