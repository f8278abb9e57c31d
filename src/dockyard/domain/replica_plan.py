"""The replicas of one version: how many are wanted, what is started, who leaves and when it may end. Pure."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from dockyard.domain.deployment import CRASH_LOOP_AFTER, Version
from dockyard.domain.lifecycle import ReplicaState
from dockyard.domain.plan import Drain, Facts, Plan, Start
from dockyard.domain.replica import Replica, restart_back_off_s

STEADY_AFTER = timedelta(seconds=30)  # a replica that was ready this long before it failed begins a new count


def wanted_replicas(version: Version, there: int, facts: Facts) -> int:
    """What the demand needs, as far as the version may have it; while nothing is known of it, what is there."""
    scaling = version.spec.scaling
    desired = there if facts.desired is None else facts.desired
    return max(scaling.min_replicas, min(scaling.max_replicas, desired))


def plan_start(
    version: Version,
    wanted: int,
    replicas: Sequence[Replica],
    living: Sequence[Replica],
    facts: Facts,
    now: datetime,
) -> Plan:
    """Start what is missing to `wanted`, as far as the host has room, not before the back-off is over."""
    missing = wanted - sum(1 for replica in living if replica.state is not ReplicaState.DRAINING)
    if missing <= 0:
        return Plan()
    failed = failures_in_a_row(replicas)
    pause = timedelta(seconds=restart_back_off_s(failed, failed_starts_in_a_row(replicas)))
    ended = [replica.stopped_at for replica in replicas if replica.failure is not None and replica.stopped_at]
    due_at = max(ended) + pause if ended else now
    if now < due_at:
        return Plan(wake_at=due_at)
    count = min(missing, max(0, facts.room))
    short = missing - count
    return Plan(
        starts=(Start(version, count, failed),) if count else (),
        lacking=0 if facts.settling else short,
        waiting=short if facts.settling else 0,
    )


def choose_victims(living: Sequence[Replica], count: int, facts: Facts) -> list[Replica]:
    """Those that serve nobody yet go first, the youngest of them before the others; then those with the least to do."""
    able = [r for r in living if r.state in (ReplicaState.STARTING, ReplicaState.LOADING, ReplicaState.READY)]
    youngest_first = sorted(able, key=lambda replica: replica.created_at, reverse=True)
    busiest_last = sorted(
        youngest_first, key=lambda r: (r.state is ReplicaState.READY, facts.running.get(r.replica_id, 0))
    )
    return busiest_last[:count]


def plan_draining(living: Sequence[Replica], facts: Facts, patience: timedelta, now: datetime) -> Plan:
    """Replicas leave the route, finish what runs, and stop. After `patience` they stop regardless."""
    draining = [replica for replica in living if replica.state is ReplicaState.DRAINING]
    patient = [r for r in draining if facts.running.get(r.replica_id) and r.modified_at + patience > now]
    ready = [replica for replica in living if replica.state is ReplicaState.READY]
    return Plan(
        drain=tuple(Drain(replica, "VERSION_DRAINING", "finishes what runs") for replica in ready),
        stop=tuple(r for r in living if r.state is not ReplicaState.READY and r not in patient),
        wake_at=min((replica.modified_at + patience for replica in patient), default=None),
    )


def failures_in_a_row(replicas: Sequence[Replica]) -> int:
    """How many rounds of starts of one version have failed since a replica of it became ready or held on.

    Replicas that were started together share their `restarts`, so ten that fail at once are one failed round.
    """
    rounds: set[int] = set()
    for replica in _latest_first(replicas):
        if replica.state is ReplicaState.READY:
            break
        if replica.state is not ReplicaState.FAILED:
            continue
        if replica.ready_at is not None and _ended_at(replica) - replica.ready_at >= STEADY_AFTER:
            return len(rounds) + 1  # its `restarts` are of the count before, and may be one of these
        rounds.add(replica.restarts)
    return len(rounds)


def failed_starts_in_a_row(replicas: Sequence[Replica]) -> int:
    """Those of them that failed before they were ready, since a replica was last seen to be ready, however shortly."""
    rounds: set[int] = set()
    for replica in _latest_first(replicas):
        if replica.state is ReplicaState.READY or (replica.state is ReplicaState.FAILED and replica.ready_at):
            break
        if replica.state is ReplicaState.FAILED:
            rounds.add(replica.restarts)
    return len(rounds)


def is_hopeless(failures: Sequence[Replica], replicas: Sequence[Replica]) -> bool:
    """The next start would fail in the same way, or three in a row have failed."""
    return any(r.failure is not None and not r.failure.retryable for r in failures) or (
        failures_in_a_row(replicas) >= CRASH_LOOP_AFTER
    )


def _latest_first(replicas: Sequence[Replica]) -> list[Replica]:
    return sorted(replicas, key=_ended_at, reverse=True)


def _ended_at(replica: Replica) -> datetime:
    """When it ended; of one that lives, when it came into its state."""
    return replica.stopped_at or replica.modified_at
