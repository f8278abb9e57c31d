"""One deployment's places and its queue: who runs, who waits, who is refused. All on the event loop's thread."""

import math
from collections.abc import Callable
from typing import Protocol

from dockyard.clock import Clock
from dockyard.domain.autoscaling import Demand
from dockyard.errors import DockyardError, Reason, TooMany
from dockyard.gateway.departures import Departures
from dockyard.gateway.fair_queue import FairQueue, Waiter
from dockyard.gateway.slots import Slot
from dockyard.protocols.routing import Route, RouteReplica


class Timer(Protocol):
    def cancel(self) -> None: ...


Later = Callable[[float, Callable[[], None]], Timer]
OnLoad = Callable[[str, Demand], None]
Refusal = Callable[[bool], DockyardError]


class House(Protocol):
    """What a pool needs of the admission that it belongs to."""

    clock: Clock
    queue_limit: int
    on_load: OnLoad | None
    later: Later

    def forget_if_unused(self, pool: "Pool", slot: Slot) -> None: ...


class Lease:
    """A place on a replica, to be released in every case."""

    __slots__ = ("_pool", "_released", "_slot", "_strikes", "key_id")

    def __init__(self, pool: "Pool", slot: Slot, key_id: str) -> None:
        self.key_id = key_id
        self._pool = pool
        self._slot = slot
        self._strikes = slot.strikes
        self._released = False

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
        """The replica served the request to its end."""
        self._slot.strikes = 0

    def release(self) -> None:
        """Give the place back. Idempotent."""
        if not self._released:
            self._released = True
            self._pool.take_back(self._slot, self.key_id)


class Pool:
    """One deployment's replicas and its queue."""

    def __init__(self, deployment_id: str, house: House, refusal: Refusal) -> None:
        self.deployment_id = deployment_id
        self.clock = house.clock
        self.route: Route | None = None
        self.in_flight = 0
        self.slots: list[Slot] = []
        self._house = house
        self._refusal = refusal
        self._queue: FairQueue[Lease] = FairQueue()
        self._departures = Departures()
        self._running: dict[str, int] = {}  # by key; the fewest go first
        self._told = Demand(0, 0)
        self._turn = 0
        self._timer: Timer | None = None

    @property
    def load(self) -> Demand:
        return Demand(len(self._queue), self.in_flight)

    async def take(self, key_id: str) -> Lease:
        """Wait for a place and take it, in the turn that `FairQueue` gives the key; the caller bounds the time.

        Raises `TooMany` when the queue has no room for the key, and once there is nothing to wait for, why that is.
        """
        if self.route is None:
            raise self._refusal(False)
        if not self._queue and (slot := self._choose()) is not None:
            lease = self._grant(slot, key_id)
            self._changed()
            return lease
        if not self._queue.has_room(key_id, self._house.queue_limit):
            raise self._full(key_id, self.route)
        waiter: Waiter[Lease] = Waiter(key_id)
        self._queue.join(waiter)
        self._departures.begin(self.clock.monotonic())
        self._arm()
        self._changed()
        return await self._wait(waiter)

    async def take_another(self, lost: Lease) -> Lease:
        """A place in exchange for `lost`, whose replica the request has to leave: before all who wait, in one step."""
        if self.route is None:
            raise self._refusal(True)
        waiter: Waiter[Lease] = Waiter(lost.key_id)
        self._queue.rejoin(waiter)
        self._departures.begin(self.clock.monotonic())
        lost.release()
        return await self._wait(waiter)

    def publish(self, route: Route, slots: list[Slot]) -> None:
        """Replace route and replicas in one step; whoever can run now, runs."""
        self.route = route
        self.slots = slots
        self.wake()

    def withdraw(self, refusal: Refusal) -> None:
        """Refuse everybody who waits or comes; `refusal` is told whether the request had already run."""
        self.route = None
        self.slots = []
        self._refusal = refusal
        self._disarm()
        for waiters, returning in zip(self._queue.clear(), (True, False), strict=True):
            for waiter in waiters:
                if not waiter.place.done():
                    waiter.place.set_exception(refusal(returning))
        self._departures = Departures()
        self._changed()

    def wake(self) -> None:
        """Hand free places to those whose turn it is."""
        while self._queue and (slot := self._choose()) is not None:
            waiter = self._queue.pop(self._running)
            self._departed()
            if not waiter.place.done():
                waiter.place.set_result(self._grant(slot, waiter.key_id))
        self._arm()
        self._changed()

    def take_back(self, slot: Slot, key_id: str) -> None:
        slot.leave()
        self.in_flight -= 1
        left = self._running[key_id] - 1
        if left:
            self._running[key_id] = left
        else:
            del self._running[key_id]
        self._house.forget_if_unused(self, slot)
        if self._queue:
            self._queue.had_place(key_id)
            self.wake()
        else:
            self._changed()

    async def _wait(self, waiter: Waiter[Lease]) -> Lease:
        try:
            return await waiter.place
        except BaseException:
            place = waiter.place
            if self._queue.remove(waiter):
                self._departed()
                self._changed()
            elif place.done() and not place.cancelled() and place.exception() is None:
                place.result().release()  # handed over in the very step in which the waiter was cancelled
            raise

    def _grant(self, slot: Slot, key_id: str) -> Lease:
        self._turn += 1
        slot.enter(self._turn, self.clock)
        self.in_flight += 1
        self._running[key_id] = self._running.get(key_id, 0) + 1
        return Lease(self, slot, key_id)

    def _departed(self) -> None:
        self._departures.count(self.clock.monotonic(), left=len(self._queue))

    def _changed(self) -> None:
        """Tell the load, once for each change and when everything agrees with it."""
        load = self.load
        if load != self._told:
            self._told = load
            if self._house.on_load is not None:
                self._house.on_load(self.deployment_id, load)

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
        if not self._queue:
            return
        free = [slot.retry_at for slot in self.slots if slot.aside and slot.in_flight < slot.replica.capacity]
        if free:
            self._timer = self._house.later(max(0.0, min(free) - self.clock.monotonic()), self.wake)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _full(self, key_id: str, route: Route) -> TooMany:
        waiting, own = len(self._queue), self._queue.waiting_of(key_id)
        return TooMany(
            f"the queue of '{route.name}' is full: {waiting} requests wait for {len(self.slots)} replica(s), {own} of "
            "them with this key; try again after the time in Retry-After, or raise the deployment's maxReplicas",
            reason=Reason.QUEUE_FULL,
            retry_after_s=self._departures.retry_after_s(self.clock.monotonic(), waiting, route.endpoint_timeout_s),
        )
