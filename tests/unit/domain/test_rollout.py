"""The rollout plan, walked through time; nothing but data goes in and comes out."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockyard.domain.deployment import Deployment, Runtime, Version
from dockyard.domain.lifecycle import REPLICA, VERSION, ReplicaState, VersionState
from dockyard.domain.plan import Facts, Plan
from dockyard.domain.replica import Replica, ReplicaFailure, back_off_s
from dockyard.domain.replica_plan import failures_in_a_row
from dockyard.domain.rollout import plan_rollout
from dockyard.domain.spec import DeploySpec, EngineName, HyperParameters, Scaling
from dockyard.errors import Reason

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEPLOYMENT = Deployment(deployment_id="dp-1", model_id="cm-1", name="d", created_at=NOW, modified_at=NOW)


def version(number: int, state: VersionState, min_replicas: int = 1) -> Version:
    return Version(
        version_id=f"vr-{number}",
        deployment_id="dp-1",
        model_id="cm-1",
        number=number,
        name="d",
        spec=DeploySpec(
            hyper=HyperParameters(temperature=1, max_tokens=10, top_p=1, top_k=50),
            device_type="g5.xlarge",
            scaling=Scaling(min_replicas=min_replicas, max_replicas=max(2, min_replicas)),
        ),
        runtime=Runtime(
            engine=EngineName.ECHO,
            device="cpu",
            gpus=0,
            compute_type="none",
            runs_on="cpu",
            context_length=None,
            memory_bytes=1,
        ),
        job_id=f"ds-{number}",
        created_at=NOW,
        modified_at=NOW,
        state=state,
    )


def replica(name: str, of: Version, state: ReplicaState, **changes: object) -> Replica:
    made = Replica(
        replica_id=name,
        version_id=of.version_id,
        deployment_id="dp-1",
        token="t",
        created_at=NOW,
        modified_at=NOW,
        state=state,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def failed(name: str, of: Version, at: datetime, *, retryable: bool = True, restarts: int = 0) -> Replica:
    failure = ReplicaFailure(reason=Reason.ENGINE_CRASHED, message="boom", at=at, retryable=retryable)
    return replica(name, of, ReplicaState.FAILED, stopped_at=at, failure=failure, restarts=restarts)


def plan(
    versions: Sequence[Version],
    replicas: Sequence[Replica] = (),
    facts: Facts | None = None,
    now: datetime = NOW,
    deployment: Deployment = DEPLOYMENT,
) -> Plan:
    return plan_rollout(deployment, versions, replicas, facts or Facts(), now)


def test_a_pending_version_is_optimized_unless_its_artifact_is_there() -> None:
    pending = version(1, VersionState.PENDING)
    assert [move.to for move in plan([pending]).moves] == [VersionState.OPTIMIZING]
    cached = plan([pending], facts=Facts(cached={"vr-1": "key"}))
    assert [(move.to, move.artifact_key) for move in cached.moves] == [(VersionState.DEPLOYING, "key")]


def test_an_optimizing_version_asks_for_its_artifact_until_it_is_made_or_cannot_be() -> None:
    optimizing = version(1, VersionState.OPTIMIZING)
    assert plan([optimizing]).prepare == (optimizing,)
    failure = ReplicaFailure(reason=Reason.CONVERSION_FAILED, message="no", at=NOW)
    (move,) = plan([optimizing], facts=Facts(unmade={"vr-1": failure})).moves
    assert (move.to, move.reason) == (VersionState.FAILED, Reason.CONVERSION_FAILED)


def test_a_version_starts_min_replicas_and_serves_when_all_are_ready() -> None:
    deploying = version(1, VersionState.DEPLOYING, min_replicas=2)
    assert [(start.count, start.restarts) for start in plan([deploying]).starts] == [(2, 0)]
    one = [replica("a", deploying, ReplicaState.READY), replica("b", deploying, ReplicaState.LOADING)]
    assert plan([deploying], one) == Plan(awaited=deploying)
    both = [replica("a", deploying, ReplicaState.READY), replica("b", deploying, ReplicaState.READY)]
    ready = plan([deploying], both)
    assert [move.to for move in ready.moves] == [VersionState.DEPLOYED]
    assert ready.route == deploying


def test_the_old_version_serves_until_the_new_one_is_deployed_then_drains_and_retires() -> None:
    old, new = version(1, VersionState.DEPLOYED), version(2, VersionState.DEPLOYING)
    old_replica, new_replica = replica("a", old, ReplicaState.READY), replica("b", new, ReplicaState.LOADING)
    assert plan([old, new], [old_replica, new_replica]).route == old

    new = replace(new, state=VersionState.DEPLOYED)
    new_replica = replace(new_replica, state=ReplicaState.READY)
    switched = plan([old, new], [old_replica, new_replica])
    assert switched.route == new
    assert [(move.version, move.to) for move in switched.moves] == [(old, VersionState.DRAINING)]

    old = replace(old, state=VersionState.DRAINING)
    assert plan([old, new], [old_replica, new_replica]).drain[0].replica == old_replica
    draining = replace(old_replica, state=ReplicaState.DRAINING)
    busy = plan([old, new], [draining, new_replica], Facts(running={"a": 1}))
    assert busy.stop == ()
    assert busy.wake_at == NOW + timedelta(seconds=60)
    assert plan([old, new], [draining, new_replica]).stop == (draining,)
    assert [move.to for move in plan([old, new], [new_replica]).moves] == [VersionState.RETIRED]


def test_a_draining_replica_is_stopped_when_the_endpoint_timeout_is_over() -> None:
    old = version(1, VersionState.DRAINING)
    draining = replica("a", old, ReplicaState.DRAINING)
    late = plan([old], [draining], Facts(running={"a": 1}), NOW + timedelta(seconds=60))
    assert late.stop == (draining,)


def test_a_new_version_that_cannot_start_fails_and_leaves_the_old_one_alone() -> None:
    old, new = version(1, VersionState.DEPLOYED), version(2, VersionState.DEPLOYING)
    replicas = [replica("a", old, ReplicaState.READY), failed("b", new, NOW, retryable=False)]
    ended = plan([old, new], replicas)
    assert [(move.version, move.to, move.reason) for move in ended.moves] == [
        (new, VersionState.FAILED, Reason.ENGINE_CRASHED)
    ]
    assert ended.route == old
    assert ended.drain == ended.stop == ()


def test_a_crash_loop_backs_off_and_fails_after_three() -> None:
    deploying = version(1, VersionState.DEPLOYING)
    history: list[Replica] = []
    now = NOW
    waits: list[float] = []
    for attempt in range(3):
        step = plan([deploying], history, now=now)
        if step.wake_at is not None:
            waits.append((step.wake_at - now).total_seconds())
            now = step.wake_at
            step = plan([deploying], history, now=now)
        (start,) = step.starts
        assert start.restarts == attempt
        history.append(failed(f"r{attempt}", deploying, now, restarts=start.restarts))
    assert waits == [1.0]  # the first restart is immediate
    (move,) = plan([deploying], history, now=now).moves
    assert move.to is VersionState.FAILED
    assert move.failure is not None


def test_a_deployed_version_is_restarted_for_ever_with_back_off() -> None:
    deployed = version(1, VersionState.DEPLOYED)
    history = [failed(f"r{n}", deployed, NOW, restarts=n) for n in range(9)]
    step = plan([deployed], history)
    assert step.moves == ()
    assert step.wake_at == NOW + timedelta(seconds=60)
    (start,) = plan([deployed], history, now=NOW + timedelta(seconds=60)).starts
    assert start.count == 1


def test_ten_replicas_that_fail_together_are_one_failure() -> None:
    deployed = version(1, VersionState.DEPLOYED, min_replicas=10)
    assert failures_in_a_row([failed(f"r{n}", deployed, NOW) for n in range(10)]) == 1


def test_a_replica_that_held_on_begins_a_new_count() -> None:
    deployed = version(1, VersionState.DEPLOYED)
    steady = replace(failed("a", deployed, NOW + timedelta(minutes=5)), ready_at=NOW)
    old = [failed(f"r{n}", deployed, NOW, restarts=n) for n in range(5)]
    assert failures_in_a_row([*old, steady]) == 1
    ready = replica("b", deployed, ReplicaState.READY, modified_at=NOW + timedelta(minutes=6))
    assert failures_in_a_row([*old, steady, ready]) == 0


def test_no_room_fails_the_deploy_unless_others_are_still_loading() -> None:
    deploying = version(1, VersionState.DEPLOYING)
    (move,) = plan([deploying], facts=Facts(room=0)).moves
    assert (move.to, move.reason) == (VersionState.FAILED, Reason.NO_CAPACITY)
    assert plan([deploying], facts=Facts(room=0, settling=True)) == Plan(awaited=deploying, waiting=1)


def test_the_version_that_serves_takes_the_room_before_the_new_one() -> None:
    serving, new = version(1, VersionState.DEPLOYED), version(2, VersionState.DEPLOYING)
    step = plan([new, serving], facts=Facts(room=1))
    assert [(start.version, start.count) for start in step.starts] == [(serving, 1)]
    assert step.moves == ()  # the new one waits: what the first takes is not known yet


@pytest.mark.parametrize("state", [VersionState.PENDING, VersionState.OPTIMIZING, VersionState.DEPLOYING])
def test_a_cancelled_version_fails_and_stops_what_it_began(state: VersionState) -> None:
    starting = version(1, state)
    begun = replica("a", starting, ReplicaState.LOADING)
    step = plan([starting], [begun], Facts(cancelled=frozenset({"vr-1"})))
    assert [(move.to, move.reason) for move in step.moves] == [(VersionState.FAILED, Reason.CANCELLED)]
    assert step.stop == (begun,)


def test_undeploy_drains_what_serves_and_routes_nothing() -> None:
    unwanted = replace(DEPLOYMENT, wanted=False)
    serving = version(1, VersionState.DEPLOYED)
    step = plan([serving], [replica("a", serving, ReplicaState.READY)], deployment=unwanted)
    assert [move.to for move in step.moves] == [VersionState.DRAINING]
    assert step.route is None


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Version], list[Replica], Facts, bool]:
    count = draw(st.integers(1, 4))
    versions = [version(n + 1, draw(st.sampled_from(VersionState)), draw(st.integers(1, 3))) for n in range(count)]
    replicas: list[Replica] = []
    for of in versions:
        for index in range(draw(st.integers(0, 4))):
            state = draw(st.sampled_from(ReplicaState))
            name = f"{of.version_id}/{index}"
            replicas.append(failed(name, of, NOW) if state is ReplicaState.FAILED else replica(name, of, state))
    cached = {of.version_id: "key" for of in versions if draw(st.booleans())}
    running = {r.replica_id: 1 for r in replicas if draw(st.booleans())}
    return versions, replicas, Facts(cached=cached, running=running, room=draw(st.integers(0, 5))), draw(st.booleans())


@given(situations())
def test_every_step_is_legal_and_capacity_is_never_taken_from_the_version_that_serves(
    situation: tuple[list[Version], list[Replica], Facts, bool],
) -> None:
    versions, replicas, facts, wanted = situation
    step = plan(versions, replicas, facts, deployment=replace(DEPLOYMENT, wanted=wanted))
    for move in step.moves:
        VERSION.check(move.version.state, move.to)
    for start in step.starts:
        living = [r for r in replicas if r.version_id == start.version.version_id and not REPLICA.is_final(r.state)]
        serving = [r for r in living if r.state is not ReplicaState.DRAINING]
        assert len(serving) + start.count <= start.version.spec.scaling.min_replicas
    for stopped in step.stop:
        assert not REPLICA.is_final(stopped.state)
        of_route = step.route is not None and stopped.version_id == step.route.version_id
        assert not of_route or stopped.state is ReplicaState.DRAINING
    for drained in step.drain:
        REPLICA.check(drained.replica.state, ReplicaState.DRAINING)
    if step.route is not None:
        assert wanted


def test_back_off_doubles_up_to_a_minute() -> None:
    assert [back_off_s(n) for n in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]
