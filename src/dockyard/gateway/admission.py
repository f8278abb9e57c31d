"""All deployments' pools, and every replica that has a route or a request: who may run where.

Nothing here knows HTTP or how a replica is spoken to. All of it runs on the event loop's thread, between awaits.
"""

import asyncio
import copy
from collections.abc import Callable, Iterator

from dockyard.clock import Clock
from dockyard.domain.autoscaling import Demand
from dockyard.errors import DockyardError, NotFound, Reason, Unavailable
from dockyard.gateway.pool import Later, OnLoad, Pool, Refusal, Timer
from dockyard.gateway.slots import Slot
from dockyard.protocols.routing import Route, RouteReplica

DEFAULT_QUEUE_LIMIT = 1000


class Admission:
    """All deployments' pools, and every replica that has a request or a route."""

    def __init__(
        self,
        clock: Clock,
        *,
        queue_limit: int = DEFAULT_QUEUE_LIMIT,
        on_load: OnLoad | None = None,
        later: Later | None = None,
    ) -> None:
        self.clock = clock
        self.queue_limit = queue_limit
        self.on_load = on_load
        self.later: Later = later or _call_later
        self._pools: dict[str, Pool] = {}
        self._slots: dict[str, Slot] = {}
        self._closed = False

    def publish(self, route: Route) -> Pool:
        """Add or replace a route. A replica that stays keeps its count; one that left finishes what it runs."""
        pool = self._pools.get(route.deployment_id)
        if pool is None:
            pool = self._pools[route.deployment_id] = Pool(route.deployment_id, self, self._undeployed)
        self._unroute(pool)
        slots = [self._slot(pool, replica) for replica in route.replicas]
        pool.publish(route, slots)
        return pool

    def withdraw(self, deployment_id: str, refusal: DockyardError | None = None) -> None:
        """Refuse who waits and who comes, with `refusal` if there is one; what runs is left alone."""
        pool = self._pools.get(deployment_id)
        if pool is not None:
            self._unroute(pool)
            pool.withdraw(_each_its_own(refusal) if refusal is not None else self._undeployed)
            if not pool.in_flight:
                del self._pools[deployment_id]

    def load(self, deployment_id: str) -> Demand:
        pool = self._pools.get(deployment_id)
        return pool.load if pool is not None else Demand(0, 0)

    def loads(self) -> Iterator[tuple[Route, Demand]]:
        """The load of every deployment that has a route."""
        for pool in list(self._pools.values()):
            if pool.route is not None:
                yield pool.route, pool.load

    def open_requests(self, replica_id: str) -> int:
        slot = self._slots.get(replica_id)
        return slot.in_flight if slot is not None else 0

    async def drained(self, replica_id: str) -> None:
        while (slot := self._slots.get(replica_id)) is not None and slot.in_flight:
            await slot.idle.wait()

    def close(self) -> None:
        """Refuse all that wait and all that come; what runs is left alone."""
        self._closed = True
        for deployment_id in list(self._pools):
            self.withdraw(deployment_id)

    def forget_if_unused(self, pool: Pool, slot: Slot) -> None:
        if not slot.in_flight and not slot.routed:
            self._drop(slot)
        if not pool.in_flight and pool.route is None:
            self._pools.pop(pool.deployment_id, None)

    def _undeployed(self, returning: bool) -> DockyardError:
        """Why there is nothing to wait for, when nobody said more."""
        if self._closed:
            return Unavailable("the server is shutting down; try again", reason=Reason.DRAINING, retry_after_s=5)
        if returning:
            return Unavailable(
                "the replica broke and the deployment has been undeployed since; deploy it again",
                reason=Reason.NO_REPLICA,
            )
        return NotFound(
            "the deployment was undeployed while the request waited; GET /v1/models lists what is served",
            reason=Reason.MODEL_NOT_SERVED,
            field="model",
        )

    def _slot(self, pool: Pool, replica: RouteReplica) -> Slot:
        slot = self._slots.get(replica.replica_id)
        if slot is None:
            slot = self._slots[replica.replica_id] = Slot(replica)
        slot.replica = replica
        slot.routed = True
        slot.forgive()
        return slot

    def _unroute(self, pool: Pool) -> None:
        for slot in pool.slots:
            slot.routed = False
            if not slot.in_flight:
                self._drop(slot)

    def _drop(self, slot: Slot) -> None:
        if self._slots.get(slot.replica.replica_id) is slot:
            del self._slots[slot.replica.replica_id]


def _call_later(delay_s: float, callback: Callable[[], None]) -> Timer:
    return asyncio.get_running_loop().call_later(delay_s, callback)


def _each_its_own(refusal: DockyardError) -> Refusal:
    """An exception gathers the trace of everybody who raises it."""
    return lambda _: copy.copy(refusal)
