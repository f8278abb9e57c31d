"""Replicas of a local fleet without a server."""

from bench.processes import BenchFailed
from dockyard.fleets.local.fleet import LocalFleet
from dockyard.protocols.fleet import ReplicaStatus
from dockyard.protocols.generation import WorkerSpec


async def serving(fleet: LocalFleet, spec: WorkerSpec) -> ReplicaStatus:
    """Start a replica and wait until it is ready. Raises `BenchFailed`."""
    status = await fleet.start(spec)
    while status.health is None or status.health.phase != "ready":
        if not status.alive:
            raise BenchFailed(f"the replica failed: {status.failure}")
        fleet.changed.clear()
        await fleet.changed.wait()
        status = fleet.statuses()[spec.replica_id]
    return status
