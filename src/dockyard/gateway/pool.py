"""One deployment's places and its queue: who runs, who waits, who is next. All on the event loop's thread."""

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dockyard.clock import Clock
from dockyard.errors import DockyardError, Reason, TooMany
from dockyard.gateway.slots import Slot
from dockyard.protocols.routing import Route, RouteReplica

RATE_WINDOW = 64  # completions that the estimate of Retry-After looks back on
RETRY_AFTER_UNKNOWN_S = 5.0  # said while nothing has completed yet
RETRY_AFTER_CEILING_S = 60.0


@dataclass(frozen=True, slots=True)
class Load:
    """The exact demand on a deployment: requests that wait, and requests that run (on leaving replicas, too)."""

    queued: int
    in_flight: int


class Timer(Protocol):
    def cancel(self) -> None: ...


Later = Callable[[float, Callable[[], None]], Timer]
OnLoad = Callable[[str, Load], None]


class House(Protocol):
    """What a pool needs of the admission that it belongs to."""

    clock: Clock
    queue_limit: int
    on_load: OnLoad | None
    later: Later

    def refusal(self, *, returning: bool) -> DockyardError:
        """Why there is nothing to wait for."""
        ...

    def forget_if_unused(self, pool: "Pool", slot: Slot) -> None: ...


class Lease:
    """A place on a replica. `with` gives it back; say `finish` before when the request was served."""

    __slots__ = ("_pool", "_released", "_served", "_slot", "_strikes")

    def __init__(self, pool: "Pool", slot: Slot) -> None:
        self._pool = pool
        self._slot = slot
        self._strikes = slot.strikes
        self._served = False
        self._released = False

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @property
    def replica(self) -> RouteReplica:
        return self._slot.replica

    def accepted(self) -> None:
        """The replica took the request: it is no longer put aside."""
        if self._slot.aside:
            self._slot.aside = False
            self._pool.wake()

    def failed(self) -> None:
        """The replica broke, or would not have the request: others are chosen before it for now."""
        self._slot.put_aside(self._pool.clock.monotonic(), seen=self._strikes)

    def finish(self) -> None:
        """The request was served to its end."""
        self._served = True
        self._slot.strikes = 0

    def release(self) -> None:
        """Give the place back. Idempotent."""
        if not self._released:
            self._released = True
            self._pool.take_back(self._slot, served=self._served)


class Pool:
    """One deployment's replicas and its queue."""

    def __init__(self, deployment_id: str, house: House) -> None:
        self.deployment_id = deployment_id
        self.clock = house.clock
        self.route: Route | None = None
        self.in_flight = 0
        self._house = house
        self.slots: list[Slot] = []
        # Requests that lost their replica go before those that never ran, and the queue's bound is not for them.
        self._returning: OrderedDict[asyncio.Future[Lease], None] = OrderedDict()
        self._waiting: OrderedDict[asyncio.Future[Lease], None] = OrderedDict()
        self._served_at: deque[float] = deque(maxlen=RATE_WINDOW)
        self._turn = 0
        self._timer: Timer | None = None

    @property
    def load(self) -> Load:
        return Load(len(self._waiting) + len(self._returning), self.in_flight)

    async def take(self, *, returning: bool = False) -> Lease:
        """Wait for a place and take it; the caller bounds the time. First come, first served.

        Raises `TooMany` when the queue is full, and `NotFound` or `Unavailable` once there is nothing to wait for.
        """
        if self.route is None:
            raise self._house.refusal(returning=returning)
        queue = self._returning if returning else self._waiting
        if not self._returning and (returning or not self._waiting):
            slot = self._choose()
            if slot is not None:
                return self._grant(slot)
        if not returning and len(queue) >= self._house.queue_limit:
            raise self._full(self.route)
        return await self._wait(queue)

    async def _wait(self, queue: OrderedDict[asyncio.Future[Lease], None]) -> Lease:
        future: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        queue[future] = None
        self._arm()
        self.changed()
        try:
            return await future
        except BaseException:
            # The place may have been handed over in the very step in which the waiter was cancelled.
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().release()
            if queue.pop(future, future) is None:
                self.changed()
            raise

    def publish(self, route: Route, slots: list[Slot]) -> None:
        """Replace route and replicas in one step; whoever can run now, runs."""
        self.route = route
        self.slots = slots
        self.wake()

    def withdraw(self, error: Callable[[bool], DockyardError]) -> None:
        """Refuse everybody who waits; `error` is told whether the request had already run."""
        self.route = None
        self.slots = []
        self._disarm()
        for queue, returning in ((self._returning, True), (self._waiting, False)):
            for future in queue:
                if not future.done():
                    future.set_exception(error(returning))
            queue.clear()
        self.changed()

    def wake(self) -> None:
        """Hand free places to the first in the queue."""
        while (queue := self._returning or self._waiting) and (slot := self._choose()) is not None:
            future, _ = queue.popitem(last=False)
            if not future.done():
                future.set_result(self._grant(slot))
        self._arm()
        self.changed()

    def take_back(self, slot: Slot, *, served: bool) -> None:
        slot.leave()
        self.in_flight -= 1
        if served:
            self._served_at.append(self.clock.monotonic())
        self._house.forget_if_unused(self, slot)
        if self._waiting or self._returning:
            self.wake()
        else:
            self.changed()

    def changed(self) -> None:
        if self._house.on_load is not None:
            self._house.on_load(self.deployment_id, self.load)

    def _grant(self, slot: Slot) -> Lease:
        self._turn += 1
        slot.enter(self._turn, self.clock)
        self.in_flight += 1
        if not (self._waiting or self._returning):
            self.changed()
        return Lease(self, slot)

    def _choose(self) -> Slot | None:
        """The least loaded replica with a free place, the longest unused of equals; those put aside come last."""
        now = None
        best: Slot | None = None
        best_rank = (True, math.inf, 0)
        for slot in self.slots:
            if slot.in_flight >= slot.replica.capacity:
                continue
            if slot.aside:
                now = self.clock.monotonic() if now is None else now
                if slot.retry_at > now:
                    continue
            rank = slot.rank
            if rank < best_rank:
                best, best_rank = slot, rank
        return best

    def _arm(self) -> None:
        """Somebody waits and the only free places are on replicas put aside: look again when the first may be tried."""
        self._disarm()
        if not (self._waiting or self._returning):
            return
        free = [slot.retry_at for slot in self.slots if slot.aside and slot.in_flight < slot.replica.capacity]
        if free:
            self._timer = self._house.later(max(0.0, min(free) - self.clock.monotonic()), self.wake)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _full(self, route: Route) -> TooMany:
        waiting = len(self._waiting)
        return TooMany(
            f"the queue of '{route.name}' is full: {waiting} requests wait for {len(self.slots)} replica(s); try again "
            "after the time in Retry-After, or raise the deployment's maxReplicas",
            reason=Reason.QUEUE_FULL,
            retry_after_s=self._retry_after_s(waiting),
        )

    def _retry_after_s(self, waiting: int) -> float:
        """Seconds until those who wait now have been served, at the recent rate.

        64 completions over the last 8 s are 8 a second; behind 40 waiting that makes 5 s.
        """
        if not self._served_at:
            return RETRY_AFTER_UNKNOWN_S
        seconds = max(self.clock.monotonic() - self._served_at[0], 0.001)
        return min(RETRY_AFTER_CEILING_S, max(1.0, (waiting + 1) * seconds / len(self._served_at)))
