"""The shape of every loop: wake, work, wait. The one broad `except` of the control plane lives here."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog
from prometheus_client import CollectorRegistry, Counter

from dockyard.errors import DockyardError, Failed, Reason

log = structlog.get_logger()

BACK_OFF_CEILING_S = 10.0


class LoopMetrics:
    """Counts what loops do; one per registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.rounds = Counter("dockyard_loop_rounds", "Rounds that a loop has made", ["loop"], registry=registry)
        self.errors = Counter("dockyard_loop_errors", "Rounds that ended with an error", ["loop"], registry=registry)


class Loop:
    """Calls `work` whenever it is woken, and after `interval_s` at the latest.

    `work` returns the seconds after which it wants to be called again, or None. An error is logged and counted, and
    the round is tried again after 0.1, 0.2, 0.4 … 10 s: a loop never dies and never spins.
    """

    def __init__(
        self, name: str, work: Callable[[], Awaitable[float | None]], interval_s: float, metrics: LoopMetrics
    ) -> None:
        self.name = name
        self._work = work
        self._interval_s = interval_s
        self._metrics = metrics
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    def wake(self) -> None:
        self._woken.set()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"loop {self.name}")

    async def stop(self) -> None:
        self._stopped = True  # for `wait_for` of Python 3.11 forgets a cancellation that comes with the wake
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        errors = 0
        while not self._stopped:
            self._woken.clear()
            self._metrics.rounds.labels(self.name).inc()
            try:
                wait_s = await self._work()
                errors = 0
            except Exception:
                errors += 1
                self._metrics.errors.labels(self.name).inc()
                log.exception("a round failed and will be tried again", loop=self.name)
                wait_s = min(BACK_OFF_CEILING_S, 0.05 * 2.0 ** min(errors, 10))
            wait_s = self._interval_s if wait_s is None else min(wait_s, self._interval_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), wait_s)


def as_failure(error: Exception) -> DockyardError:
    """What a job is told of `error`: its own words if it is one of ours, else INTERNAL, with the stack in the log."""
    if isinstance(error, DockyardError):
        return error
    log.error("a fault of Dockyard's own", exc_info=error)
    return Failed("a fault of Dockyard's own; the server's log has the details", reason=Reason.INTERNAL)
