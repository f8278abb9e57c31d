"""The plan that closes the gap between the versions that are wanted and the replicas that run. Pure: data in, data out.

Pending ──artifact there?──► Deploying ──minReplicas ready──► Deployed ──newer one Deployed, or undeployed──► Draining
   └──no──► Optimizing ──made──┘                                                       no replica left ──► Retired
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from dockyard.domain.deployment import CRASH_LOOP_AFTER, Deployment, Version
from dockyard.domain.lifecycle import REPLICA, ReplicaState, VersionState
from dockyard.domain.replica import Replica, ReplicaFailure, back_off_s
from dockyard.errors import Reason

STEADY_AFTER = timedelta(seconds=30)  # a replica that was ready this long before it failed begins a new count


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the planner is told beside the rows. `cached`, `unmade`, `cancelled`: version ids; `busy`: replica ids."""

    cached: Mapping[str, str] = field(default_factory=dict[str, str])  # → key of the finished artifact
    unmade: Mapping[str, ReplicaFailure] = field(default_factory=dict[str, ReplicaFailure])  # making it failed
    cancelled: frozenset[str] = frozenset()
    busy: frozenset[str] = frozenset()  # replicas with requests still running
    room: int = 1_000  # how many more replicas the host has memory for
    settling: bool = False  # replicas are still loading: what they take, and so the room, is not known yet


@dataclass(frozen=True, slots=True)
class Move:
    """One version goes to another state, and why."""

    version: Version
    to: VersionState
    reason: str
    message: str
    failure: ReplicaFailure | None = None
    artifact_key: str | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """Start `count` replicas of a version; `restarts` of it failed in a row before."""

    version: Version
    count: int
    restarts: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now. `route`: the version that should be served (None: nothing); `wake_at`: when to look again.

    `drain` are replicas to take out of the route, `stop` those that may end now.
    """

    moves: tuple[Move, ...] = ()
    starts: tuple[Start, ...] = ()
    prepare: tuple[Version, ...] = ()
    drain: tuple[Replica, ...] = ()
    stop: tuple[Replica, ...] = ()
    route: Version | None = None
    wake_at: datetime | None = None


def plan_rollout(
    deployment: Deployment, versions: Sequence[Version], replicas: Sequence[Replica], facts: Facts, now: datetime
) -> Plan:
    """The next steps for one deployment. `replicas` holds the living ones and the recent failures of each version."""
    steps = [_plan_version(deployment, version, versions, _of(version, replicas), facts, now) for version in versions]
    serving = _serving(deployment, versions, steps)
    return Plan(
        moves=tuple(move for step in steps for move in step.moves),
        starts=tuple(start for step in steps for start in step.starts),
        prepare=tuple(version for step in steps for version in step.prepare),
        drain=tuple(replica for step in steps for replica in step.drain),
        stop=tuple(replica for step in steps for replica in step.stop),
        route=serving,
        wake_at=min((step.wake_at for step in steps if step.wake_at), default=None),
    )


def failures_in_a_row(replicas: Sequence[Replica]) -> int:
    """How many rounds of starts of one version have failed since a replica of it became ready or held on.

    Replicas that were started together share their `restarts`, so ten that fail at once are one failed round.
    """
    rounds: set[int] = set()
    for replica in sorted(replicas, key=lambda r: r.stopped_at or r.modified_at, reverse=True):
        if replica.state is ReplicaState.READY:
            break
        if replica.state is not ReplicaState.FAILED:
            continue
        rounds.add(replica.restarts)
        ended_at = replica.stopped_at or replica.modified_at
        if replica.ready_at is not None and ended_at - replica.ready_at >= STEADY_AFTER:
            break
    return len(rounds)


def _plan_version(
    deployment: Deployment,
    version: Version,
    versions: Sequence[Version],
    replicas: Sequence[Replica],
    facts: Facts,
    now: datetime,
) -> Plan:
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
            return _plan_deploying(version, replicas, living, facts, now)
        case VersionState.DEPLOYED if not deployment.wanted:
            return Plan(moves=(Move(version, VersionState.DRAINING, "UNDEPLOYED", "the deployment was undeployed"),))
        case VersionState.DEPLOYED if newer := _newer_deployed(version, versions):
            message = f"version {newer.number} has taken over"
            return Plan(moves=(Move(version, VersionState.DRAINING, "SUPERSEDED", message),))
        case VersionState.DEPLOYED:
            return _plan_start(version, replicas, living, facts, now)
        case VersionState.DRAINING:
            return _plan_draining(version, living, facts, timedelta(seconds=deployment.endpoint_timeout_s), now)
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
    version: Version, replicas: Sequence[Replica], living: Sequence[Replica], facts: Facts, now: datetime
) -> Plan:
    ready = [replica for replica in living if replica.state is ReplicaState.READY]
    if len(ready) >= version.spec.scaling.min_replicas:
        message = f"{len(ready)} of {version.spec.scaling.min_replicas} replicas are ready"
        return Plan(moves=(Move(version, VersionState.DEPLOYED, "REPLICAS_READY", message),))
    failures = [replica for replica in replicas if replica.failure is not None]
    if failures and _hopeless(failures, replicas):
        last = max(failures, key=lambda replica: replica.stopped_at or replica.modified_at).failure
        assert last is not None
        return Plan(moves=(Move(version, VersionState.FAILED, last.reason, last.message, last),), stop=tuple(living))
    starting = _plan_start(version, replicas, living, facts, now)
    missing = version.spec.scaling.min_replicas - len(living)
    if missing > 0 and facts.room <= 0 and not facts.settling and not starting.wake_at:
        return Plan(moves=(_no_room(version),), stop=tuple(living))
    return starting


def _hopeless(failures: Sequence[Replica], replicas: Sequence[Replica]) -> bool:
    """The next start would fail in the same way, or three in a row have failed."""
    return any(r.failure is not None and not r.failure.retryable for r in failures) or (
        failures_in_a_row(replicas) >= CRASH_LOOP_AFTER
    )


def _no_room(version: Version) -> Move:
    need = version.runtime.memory_bytes / (1 << 30)
    message = (
        f"the host has not {need:.2f} GiB of memory free for one more replica; undeploy something, "
        "or deploy with a smaller maxBatchSize or minReplicas"
    )
    return Move(version, VersionState.FAILED, Reason.NO_CAPACITY, message)


def _plan_start(
    version: Version, replicas: Sequence[Replica], living: Sequence[Replica], facts: Facts, now: datetime
) -> Plan:
    """Start what is missing to `min_replicas`, as far as the host has room, not before the back-off is over."""
    serving = [replica for replica in living if replica.state is not ReplicaState.DRAINING]
    missing = version.spec.scaling.min_replicas - len(serving)
    if missing <= 0:
        return Plan()
    failed = failures_in_a_row(replicas)
    # The first restart is immediate: one crash is no loop yet. From the second on 1, 2, 4 … 60 s.
    ended = [replica.stopped_at for replica in replicas if replica.failure is not None and replica.stopped_at]
    due_at = max(ended) + timedelta(seconds=back_off_s(failed - 1)) if ended else now
    if now < due_at:
        return Plan(wake_at=due_at)
    count = min(missing, max(0, facts.room))
    return Plan(starts=(Start(version, count, failed),)) if count else Plan()


def _plan_draining(
    version: Version, living: Sequence[Replica], facts: Facts, patience: timedelta, now: datetime
) -> Plan:
    """Replicas leave the route, finish what runs, and stop. After `patience` they stop regardless."""
    if not living:
        return Plan(moves=(Move(version, VersionState.RETIRED, "DRAINED", "its last replica has stopped"),))
    draining = [replica for replica in living if replica.state is ReplicaState.DRAINING]
    patient = [r for r in draining if r.replica_id in facts.busy and r.modified_at + patience > now]
    return Plan(
        drain=tuple(replica for replica in living if replica.state is ReplicaState.READY),
        stop=tuple(r for r in living if r.state is not ReplicaState.READY and r not in patient),
        wake_at=min((replica.modified_at + patience for replica in patient), default=None),
    )


def _serving(deployment: Deployment, versions: Sequence[Version], steps: Sequence[Plan]) -> Version | None:
    """The newest version that is Deployed, or becomes so by this very plan."""
    if not deployment.wanted:
        return None
    becoming = {move.version.version_id for step in steps for move in step.moves if move.to is VersionState.DEPLOYED}
    able = [v for v in versions if v.state is VersionState.DEPLOYED or v.version_id in becoming]
    return max(able, key=lambda version: version.number, default=None)


def _newer_deployed(version: Version, versions: Sequence[Version]) -> Version | None:
    newer = [v for v in versions if v.number > version.number and v.state is VersionState.DEPLOYED]
    return max(newer, key=lambda v: v.number, default=None)


def _of(version: Version, replicas: Sequence[Replica]) -> list[Replica]:
    return [replica for replica in replicas if replica.version_id == version.version_id]
