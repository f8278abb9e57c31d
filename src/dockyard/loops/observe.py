"""From what the fleet sees to the replica rows: states, process ids, timings, failures."""

from collections.abc import Callable
from dataclasses import replace

from dockyard.domain.lifecycle import ReplicaState
from dockyard.domain.replica import Replica
from dockyard.errors import Stale
from dockyard.protocols.fleet import ReplicaStatus
from dockyard.services.context import SYSTEM, Context
from dockyard.store.transaction import Transaction

# A replica's own phase → the state of its row. "failed" is not here: the process ends, and then it is `alive` False.
_STATES = {
    "starting": ReplicaState.STARTING,
    "importing": ReplicaState.STARTING,
    "loading": ReplicaState.LOADING,
    "warming_up": ReplicaState.LOADING,
    "ready": ReplicaState.READY,
    "draining": ReplicaState.DRAINING,
}
_ORDER = (
    ReplicaState.PENDING,
    ReplicaState.STARTING,
    ReplicaState.LOADING,
    ReplicaState.READY,
    ReplicaState.DRAINING,
)


async def observe_replicas(ctx: Context, look_at: Callable[[str], None] = lambda _: None) -> list[Replica]:
    """Bring the rows of living replicas up to what the fleet knows. Writes only what has changed.

    `look_at` is told each deployment that something changed in, before its row says so: should a later row not be
    written, this change is not seen again. Returns the replicas that were living at the last look.
    """
    async with ctx.store.reading() as tx:
        living = await tx.replicas.living()
    statuses = ctx.fleet.statuses()
    changed = [(replica, statuses.get(replica.replica_id)) for replica in living]
    changed = [(replica, status) for replica, status in changed if _differs(replica, status)]
    for replica, status in changed:
        look_at(replica.deployment_id)
        try:
            async with ctx.store.transaction() as tx:
                await _record(ctx, tx, replica, status)
        except Stale:
            continue  # somebody moved it meanwhile; the next round sees the new row
    return living


async def settle_after_restart(ctx: Context) -> None:
    """Close the rows of replicas that did not outlive the server before this one. That is no failure of theirs."""
    async with ctx.store.transaction() as tx:
        for replica in await tx.replicas.living():
            status = ctx.fleet.statuses().get(replica.replica_id)
            if status is not None and status.alive:
                continue
            now = ctx.clock.now()
            await tx.transition(
                replica,
                ReplicaState.STOPPED,
                reason="LOST_WITH_SERVER",
                message="it was not running any more when the server started",
                actor=SYSTEM,
                now=now,
                stopped_at=now,
            )


def _differs(replica: Replica, status: ReplicaStatus | None) -> bool:
    if status is None or not status.alive:
        return True
    return _state_of(replica, status) is not replica.state or (replica.pid is None and status.pid is not None)


def _state_of(replica: Replica, status: ReplicaStatus) -> ReplicaState:
    """The state that a living process is in. States never go back: a draining replica still calls itself ready."""
    told = _STATES.get(status.health.phase) if status.health else None
    if told is None or _ORDER.index(told) < _ORDER.index(replica.state):
        return replica.state
    return told


async def _record(ctx: Context, tx: Transaction, replica: Replica, status: ReplicaStatus | None) -> None:
    now = ctx.clock.now()
    if status is None:
        await tx.transition(
            replica,
            ReplicaState.STOPPED,
            reason="NEVER_STARTED",
            message="the server ended before its process was started",
            actor=SYSTEM,
            now=now,
            stopped_at=now,
        )
        return
    if not status.alive:
        failure = status.failure
        await tx.transition(
            _identified(replica, status),
            ReplicaState.FAILED if failure else ReplicaState.STOPPED,
            reason=failure.reason if failure else "STOPPED",
            message=failure.message if failure else "it was asked to stop",
            actor=SYSTEM,
            now=now,
            stopped_at=now,
            failure=failure,
        )
        return
    state = _state_of(replica, status)
    if state is replica.state:
        await tx.replicas.save(_identified(replica, status))
        return
    timings = _timings(status)
    await tx.transition(
        _identified(replica, status),
        state,
        reason="OBSERVED",
        message=", ".join(f"{name} {ms:.0f} ms" for name, ms in timings.items() if name != "totalMs") or "it says so",
        actor=SYSTEM,
        now=now,
        timings=timings or None,
        started_at=replica.started_at or now,
        ready_at=now if state is ReplicaState.READY else replica.ready_at,
    )


def _identified(replica: Replica, status: ReplicaStatus) -> Replica:
    return replace(
        replica,
        pid=status.pid or replica.pid,
        process_started_at=status.process_started_at or replica.process_started_at,
        socket=status.address.socket or replica.socket,
        gpus=status.gpus or replica.gpus,
    )


def _timings(status: ReplicaStatus) -> dict[str, float]:
    spawn = {"spawnMs": round(status.spawn_ms, 1)} if status.spawn_ms is not None else {}
    told = status.health.timings if status.health else {}
    return {**spawn, **{name: round(ms, 1) for name, ms in told.items()}}
