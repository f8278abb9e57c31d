"""What no rollout plan may do, whatever the world is like."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from dockyard.domain.deployment import Deployment, Version
from dockyard.domain.lifecycle import REPLICA, VERSION, ReplicaState, VersionState
from dockyard.domain.plan import Facts, Plan
from dockyard.domain.replica import Replica

PATIENCE = timedelta(seconds=60)  # the endpoint timeout of the deployment: no request runs longer


@dataclass(frozen=True)
class Snapshot:
    """What a plan was made from."""

    deployment: Deployment
    versions: tuple[Version, ...]
    replicas: tuple[Replica, ...]
    facts: Facts
    route: Version | None
    now: datetime

    def living(self, version: Version, *states: ReplicaState) -> list[Replica]:
        return [
            replica
            for replica in self.replicas
            if replica.version_id == version.version_id
            and not REPLICA.is_final(replica.state)
            and (not states or replica.state in states)
        ]

    def ready(self, version: Version) -> int:
        return len(self.living(version, ReplicaState.READY))

    def wanted(self, version: Version) -> int:
        """What the demand needs within the version's bounds; nothing is taken away while the demand is not known."""
        scaling = version.spec.scaling
        there = len(self.living(version)) - len(self.living(version, ReplicaState.DRAINING))
        desired = there if self.facts.desired is None else self.facts.desired
        return max(scaling.min_replicas, min(scaling.max_replicas, desired))


def check(before: Snapshot, plan: Plan) -> None:
    """What no plan may do, whatever the world is like."""
    for part in (_steps_are_legal, _one_version_is_routed, _capacity_stays, _starts_keep_to_the_bounds, _ends_are_due):
        part(before, plan)


def _steps_are_legal(before: Snapshot, plan: Plan) -> None:
    moved = [move.version.version_id for move in plan.moves]
    assert len(moved) == len(set(moved))
    for move in plan.moves:
        VERSION.check(move.version.state, move.to)
    for drain in plan.drain:
        REPLICA.check(drain.replica.state, ReplicaState.DRAINING)
    assert not any(REPLICA.is_final(replica.state) for replica in plan.stop)
    assert not {drain.replica.replica_id for drain in plan.drain} & {replica.replica_id for replica in plan.stop}


def _one_version_is_routed(before: Snapshot, plan: Plan) -> None:
    """None unless it is wanted; and once one serves, one serves until the undeploy: it never goes back or away."""
    becoming = {move.version.version_id for move in plan.moves if move.to is VersionState.DEPLOYED}
    if not before.deployment.wanted:
        assert plan.route is None
        return
    if plan.route is not None:
        assert plan.route.state is VersionState.DEPLOYED or plan.route.version_id in becoming
        assert plan.awaited is None
    if before.route is not None:
        assert plan.route is not None
        assert plan.route.number >= before.route.number
    leaving = {move.version.version_id for move in plan.moves if move.to is VersionState.DRAINING}
    assert plan.route is None or plan.route.version_id not in leaving


def _capacity_stays(before: Snapshot, plan: Plan) -> None:
    """No plan takes ready replicas from the version that serves below what is wanted; and a version that takes over
    has as many as it needs for what the one before it served, or all that the host has room for.
    """
    if plan.route is None:
        return
    taken = {drain.replica.replica_id for drain in plan.drain} | {replica.replica_id for replica in plan.stop}
    kept = [r for r in before.living(plan.route, ReplicaState.READY) if r.replica_id not in taken]
    assert len(kept) >= min(before.ready(plan.route), before.wanted(plan.route))
    if before.route is None or before.route.version_id == plan.route.version_id:
        return
    assert len(kept) >= plan.route.spec.scaling.min_replicas
    full = before.facts.room <= 0 and not before.facts.settling
    demanded = 0 if before.facts.desired is None else min(before.facts.desired, plan.route.spec.scaling.max_replicas)
    assert full or len(kept) >= min(before.ready(before.route), demanded)
    old = {replica.replica_id for replica in before.living(before.route)}
    stopped = {replica.replica_id for replica in plan.stop if replica.state is not ReplicaState.DRAINING}
    assert not old & stopped, "the one before it is drained once the route has been switched, not with it"


def _starts_keep_to_the_bounds(before: Snapshot, plan: Plan) -> None:
    assert sum(start.count for start in plan.starts) <= max(0, before.facts.room)
    for start in plan.starts:
        there = len(before.living(start.version)) - len(before.living(start.version, ReplicaState.DRAINING))
        assert there + start.count <= max(before.wanted(start.version), start.version.spec.scaling.min_replicas)
        assert start.version.state in (VersionState.DEPLOYING, VersionState.DEPLOYED)
        assert before.deployment.wanted


def _ends_are_due(before: Snapshot, plan: Plan) -> None:
    """A replica with requests ends when they have, or when no request can still be running; of a version that failed
    nothing is routed, so nothing runs.
    """
    states: dict[str, VersionState] = {version.version_id: version.state for version in before.versions}
    failing = {move.version.version_id for move in plan.moves if move.to is VersionState.FAILED}
    for replica in plan.stop:
        if replica.version_id in failing or states[replica.version_id] is VersionState.FAILED:
            assert before.route is None or replica.version_id != before.route.version_id
            continue
        assert replica.state is not ReplicaState.READY
        if before.facts.running.get(replica.replica_id):
            assert replica.modified_at + PATIENCE <= before.now
    if plan.wake_at is not None:
        assert plan.wake_at > before.now
