"""The plan that closes the gap between the versions that are wanted and the replicas that run. Pure: data in, data out.

How many replicas a version wants is what the autoscaler desires, between its minReplicas and maxReplicas.

Pending ──artifact there?──► Deploying ──enough ready──► Deployed ──newer one Deployed, or undeployed──► Draining
   └──no──► Optimizing ──made──┘                                                       no replica left ──► Retired
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from dockyard.domain.deployment import Deployment, Version
from dockyard.domain.fit import Room, in_gib
from dockyard.domain.lifecycle import REPLICA, ReplicaState, VersionState
from dockyard.domain.plan import Drain, Facts, Move, Plan
from dockyard.domain.replica import Replica
from dockyard.domain.replica_plan import choose_victims, is_hopeless, plan_draining, plan_start, wanted_replicas
from dockyard.errors import Reason


def plan_rollout(
    deployment: Deployment, versions: Sequence[Version], replicas: Sequence[Replica], facts: Facts, now: datetime
) -> Plan:
    """The next steps for one deployment. `replicas` holds the living ones and the recent failures of each version."""
    served = sum(1 for r in replicas if r.state is ReplicaState.READY and _serves(r, versions))
    steps: list[Plan] = []
    for version in sorted(versions, key=lambda version: version.number):  # what serves takes room first
        own = _facts_of(version, facts, sum(start.count for step in steps for start in step.starts))
        steps.append(_plan_version(deployment, version, versions, _of(version, replicas), served, own, now))
    serving = _serving(deployment, versions, steps)
    return Plan(
        moves=tuple(move for step in steps for move in step.moves),
        starts=tuple(start for step in steps for start in step.starts),
        prepare=tuple(version for step in steps for version in step.prepare),
        drain=tuple(drain for step in steps for drain in step.drain),
        stop=tuple(replica for step in steps for replica in step.stop),
        route=serving,
        awaited=None if serving else _awaited(deployment, versions, steps),
        lacking=sum(step.lacking for step in steps),
        waiting=sum(step.waiting for step in steps),
        wake_at=min((step.wake_at for step in steps if step.wake_at), default=None),
    )


def _facts_of(version: Version, facts: Facts, started: int) -> Facts:
    """`facts` with the room that this version has, when this plan has `started` so many replicas already."""
    room = facts.rooms.get(version.version_id, Room(facts.room, facts.settling))
    return replace(facts, room=room.count - started, settling=room.settling or started > 0)


def _plan_version(
    deployment: Deployment,
    version: Version,
    versions: Sequence[Version],
    replicas: Sequence[Replica],
    served: int,
    facts: Facts,
    now: datetime,
) -> Plan:
    patience = timedelta(seconds=deployment.endpoint_timeout_s)
    living = [replica for replica in replicas if not REPLICA.is_final(replica.state)]
    match version.state:
        case VersionState.PENDING | VersionState.OPTIMIZING | VersionState.DEPLOYING if withdrawn := _withdrawn(
            deployment, version, versions, facts
        ):
            return Plan(moves=(withdrawn,), stop=tuple(living))
        case VersionState.PENDING | VersionState.OPTIMIZING if key := facts.cached.get(version.version_id):
            message = "the artifact is there"
            return Plan(moves=(Move(version, VersionState.DEPLOYING, "ARTIFACT_READY", message, artifact_key=key),))
        case VersionState.PENDING:
            return Plan(moves=(Move(version, VersionState.OPTIMIZING, "ARTIFACT_ABSENT", "the artifact must be made"),))
        case VersionState.OPTIMIZING if failure := facts.unmade.get(version.version_id):
            return Plan(moves=(Move(version, VersionState.FAILED, failure.reason, failure.message, failure),))
        case VersionState.OPTIMIZING:
            return Plan(prepare=(version,))
        case VersionState.DEPLOYING:
            return _plan_deploying(version, replicas, living, served, facts, now)
        case VersionState.DEPLOYED if not deployment.wanted:
            return Plan(moves=(Move(version, VersionState.DRAINING, "UNDEPLOYED", "the deployment was undeployed"),))
        case VersionState.DEPLOYED if newer := _newer_deployed(version, versions):
            message = f"version {newer.number} has taken over"
            return Plan(moves=(Move(version, VersionState.DRAINING, "SUPERSEDED", message),))
        case VersionState.DEPLOYED:
            return _plan_deployed(version, replicas, living, facts, patience, now)
        case VersionState.DRAINING:
            return plan_draining(living, facts, patience, now) if living else Plan(moves=(_drained(version),))
        case VersionState.RETIRED | VersionState.FAILED:
            return Plan(stop=tuple(living))
    raise AssertionError(version.state)


def _withdrawn(deployment: Deployment, version: Version, versions: Sequence[Version], facts: Facts) -> Move | None:
    """Why a version that does not serve yet should not go on, if there is such a reason."""
    if version.version_id in facts.cancelled:
        reason, message = Reason.CANCELLED, "the deploy was cancelled"
    elif not deployment.wanted:
        reason, message = Reason.CANCELLED, "the deployment was undeployed while it started"
    elif newer := _newer_deployed(version, versions):
        reason, message = Reason.SUPERSEDED, f"version {newer.number} was deployed first"
    else:
        return None
    return Move(version, VersionState.FAILED, reason, message)


def _plan_deploying(
    version: Version,
    replicas: Sequence[Replica],
    living: Sequence[Replica],
    served: int,
    facts: Facts,
    now: datetime,
) -> Plan:
    """It takes over with as many replicas as it needs to stand in for the `served` ones that are ready now, as far as
    the host has room for them beside the old ones; with minReplicas in any case.
    """
    ready = sum(1 for replica in living if replica.state is ReplicaState.READY)
    minimum = version.spec.scaling.min_replicas
    enough = max(minimum, min(served, wanted_replicas(version, 0, facts)))
    no_room = facts.room <= 0 and not facts.settling
    if ready >= enough or (ready >= minimum and no_room and ready == len(living)):
        message = f"{ready} of {enough} replicas are ready"
        return Plan(moves=(Move(version, VersionState.DEPLOYED, "REPLICAS_READY", message),))
    failures = [replica for replica in replicas if replica.failure is not None]
    if failures and is_hopeless(failures, replicas):
        last = max(failures, key=lambda replica: replica.stopped_at or replica.modified_at).failure
        assert last is not None
        return Plan(moves=(Move(version, VersionState.FAILED, last.reason, last.message, last),), stop=tuple(living))
    starting = plan_start(version, enough, replicas, living, facts, now)
    if len(living) < minimum and no_room and not starting.wake_at:
        return Plan(moves=(_no_room(version),), stop=tuple(living))
    return starting


def _no_room(version: Version) -> Move:
    runtime = version.runtime
    if runtime.device == "cuda":
        message = (
            f"the host has not {runtime.gpus} GPU(s) free with {in_gib(runtime.bytes_each)} of memory each for one "
            "more replica; undeploy something or lower minReplicas (`dockyard devices --gpus` tells who has which)"
        )
    else:
        message = (
            f"the host has not {in_gib(runtime.memory_bytes)} of memory free for one more replica; undeploy something, "
            "or deploy with a smaller maxBatchSize or minReplicas"
        )
    return Move(version, VersionState.FAILED, Reason.NO_CAPACITY, message)


def _plan_deployed(
    version: Version,
    replicas: Sequence[Replica],
    living: Sequence[Replica],
    facts: Facts,
    patience: timedelta,
    now: datetime,
) -> Plan:
    """As many replicas as are wanted: more are started, surplus ones leave."""
    leaving = [replica for replica in living if replica.state is ReplicaState.DRAINING]
    gone = plan_draining(leaving, facts, patience, now)
    there = len(living) - len(leaving)
    wanted = wanted_replicas(version, there, facts)
    if there > wanted:
        victims = choose_victims(living, there - wanted, facts)
        return replace(gone, drain=tuple(Drain(r, "SCALED_DOWN", f"{wanted} replica(s) are enough") for r in victims))
    start = plan_start(version, wanted, replicas, living, facts, now)
    due = [plan.wake_at for plan in (gone, start) if plan.wake_at is not None]
    return replace(start, stop=gone.stop, wake_at=min(due, default=None))


def _drained(version: Version) -> Move:
    return Move(version, VersionState.RETIRED, "DRAINED", "its last replica has stopped")


def _serves(replica: Replica, versions: Sequence[Version]) -> bool:
    return any(v.version_id == replica.version_id and v.state is VersionState.DEPLOYED for v in versions)


def _serving(deployment: Deployment, versions: Sequence[Version], steps: Sequence[Plan]) -> Version | None:
    """The newest version that is Deployed, or becomes so by this very plan."""
    if not deployment.wanted:
        return None
    becoming = {move.version.version_id for step in steps for move in step.moves if move.to is VersionState.DEPLOYED}
    able = [v for v in versions if v.state is VersionState.DEPLOYED or v.version_id in becoming]
    return max(able, key=lambda version: version.number, default=None)


def _awaited(deployment: Deployment, versions: Sequence[Version], steps: Sequence[Plan]) -> Version | None:
    """The newest version that is on its way to be served, unless it fails by this very plan."""
    failing = {move.version.version_id for step in steps for move in step.moves if move.to is VersionState.FAILED}
    on_the_way = (VersionState.PENDING, VersionState.OPTIMIZING, VersionState.DEPLOYING)
    able = [v for v in versions if v.state in on_the_way and v.version_id not in failing]
    return max(able, key=lambda version: version.number, default=None) if deployment.wanted else None


def _newer_deployed(version: Version, versions: Sequence[Version]) -> Version | None:
    newer = [v for v in versions if v.number > version.number and v.state is VersionState.DEPLOYED]
    return max(newer, key=lambda v: v.number, default=None)


def _of(version: Version, replicas: Sequence[Replica]) -> list[Replica]:
    return [replica for replica in replicas if replica.version_id == version.version_id]
