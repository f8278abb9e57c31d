"""Transitions: the state and the event that tells it are written together or not at all."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dockyard.domain.deployment import Deployment, Runtime, Version
from dockyard.domain.job import Action, Job, fail
from dockyard.domain.lifecycle import IllegalTransition, JobStatus, ModelState, ReplicaState, VersionState
from dockyard.domain.model import Model
from dockyard.domain.replica import Replica
from dockyard.domain.spec import DeploySpec, EngineName, HyperParameters, ModelType
from dockyard.errors import Reason, Stale
from dockyard.store.database import Store
from dockyard.store.events import Events

CREATED = datetime(2026, 2, 5, tzinfo=UTC)
NOW = CREATED + timedelta(seconds=3)
MODEL = Model(
    model_id="cm-1", name="m", model_type=ModelType.FINE_TUNE, source={}, created_at=CREATED, modified_at=CREATED
)
DEPLOYMENT = Deployment(deployment_id="dp-1", model_id="cm-1", name="d", created_at=CREATED, modified_at=CREATED)
VERSION = Version(
    version_id="vr-1",
    deployment_id="dp-1",
    model_id="cm-1",
    number=1,
    name="d",
    spec=DeploySpec(hyper=HyperParameters(temperature=0, max_tokens=1, top_p=1, top_k=1), device_type="g5.xlarge"),
    runtime=Runtime(
        engine=EngineName.ECHO,
        device="cpu",
        gpus=0,
        compute_type="float32",
        runs_on="cpu",
        context_length=512,
        memory_bytes=1,
    ),
    job_id="ds-1",
    created_at=CREATED,
    modified_at=CREATED,
)
REPLICA = Replica(
    replica_id="rp-1", version_id="vr-1", deployment_id="dp-1", token="t", created_at=CREATED, modified_at=CREATED
)
JOB = Job(
    job_id="ds-1",
    model_id="cm-1",
    action=Action.DEPLOY,
    created_at=CREATED,
    modified_at=CREATED,
    deployment_id="dp-1",
)


async def add_all(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.models.add(MODEL)
        await tx.deployments.add(DEPLOYMENT)
        await tx.versions.add(VERSION)
        await tx.replicas.add(REPLICA)
        await tx.jobs.add(JOB)


async def test_a_transition_saves_the_state_and_adds_its_event(store: Store) -> None:
    await add_all(store)
    async with store.transaction() as tx:
        moved = await tx.transition(
            VERSION, VersionState.OPTIMIZING, reason="ACCEPTED", message="converting", actor="ak-1", now=NOW
        )
    assert moved == replace(VERSION, state=VersionState.OPTIMIZING, modified_at=NOW, revision=1)
    async with store.reading() as tx:
        assert await tx.versions.get("vr-1") == moved
        (event,) = (await tx.events.page(9)).items
    assert (event.subject, event.before, event.after) == ("vr-1", "Pending", "Optimizing")
    assert (event.reason, event.message, event.actor, event.at) == ("ACCEPTED", "converting", "ak-1", NOW)
    assert (event.deployment_id, event.model_id) == ("dp-1", "cm-1")


async def test_every_kind_with_a_machine_can_move_and_is_found_from_above(store: Store) -> None:
    await add_all(store)
    async with store.transaction() as tx:
        told = {"reason": "R", "message": "m", "actor": "dockyard", "now": NOW}
        await tx.transition(MODEL, ModelState.VALIDATING, **told)
        await tx.transition(VERSION, VersionState.DEPLOYING, **told)
        await tx.transition(REPLICA, ReplicaState.STARTING, **told)
        await tx.transition(JOB, JobStatus.SUCCESS, **told)
    async with store.reading() as tx:
        assert [event.subject for event in (await tx.events.page(9)).items] == ["ds-1", "rp-1", "vr-1", "cm-1"]
        of_deployment = await tx.events.page(9, deployment_id="dp-1")
        assert [event.subject for event in of_deployment.items] == ["ds-1", "rp-1", "vr-1"]
        of_model = await tx.events.page(9, model_id="cm-1")
        assert [event.subject for event in of_model.items] == ["ds-1", "vr-1", "cm-1"]
        assert (await tx.jobs.get("ds-1")).status is JobStatus.SUCCESS


async def test_changes_to_other_fields_go_with_the_state(store: Store) -> None:
    await add_all(store)
    async with store.transaction() as tx:
        moved = await tx.transition(
            REPLICA, ReplicaState.STARTING, reason="R", message="m", actor="dockyard", now=NOW, pid=7, started_at=NOW
        )
    async with store.reading() as tx:
        assert await tx.replicas.get("rp-1") == moved
    assert (moved.pid, moved.started_at) == (7, NOW)


async def test_a_job_that_the_domain_ended_is_told_with_its_own_fields(store: Store) -> None:
    await add_all(store)
    failed = fail(JOB, Reason.NO_CAPACITY, "no memory left", NOW)
    changes = {name: getattr(failed, name) for name in ("reason", "message", "logs")}
    async with store.transaction() as tx:
        saved = await tx.jobs.save(replace(JOB, **changes))
        assert saved == replace(failed, status=JobStatus.IN_PROGRESS, modified_at=CREATED, revision=1)
        assert await tx.transition(
            saved, JobStatus.FAILED, reason="NO_CAPACITY", message="m", actor="dockyard", now=NOW
        ) == replace(failed, revision=2)


async def test_an_illegal_transition_writes_nothing(store: Store) -> None:
    await add_all(store)
    async with store.transaction() as tx:
        with pytest.raises(IllegalTransition, match="cannot go from Pending to Deployed"):
            await tx.transition(VERSION, VersionState.DEPLOYED, reason="R", message="m", actor="ak-1", now=NOW)
    async with store.reading() as tx:
        assert await tx.versions.get("vr-1") == VERSION
        assert (await tx.events.page(9)).total == 0


async def test_a_stale_transition_writes_no_event(store: Store) -> None:
    await add_all(store)
    async with store.transaction() as tx:
        await tx.versions.save(VERSION)
    async with store.transaction() as tx:
        with pytest.raises(Stale):
            await tx.transition(VERSION, VersionState.FAILED, reason="R", message="m", actor="ak-1", now=NOW)
    async with store.reading() as tx:
        assert (await tx.versions.get("vr-1")).state is VersionState.PENDING
        assert (await tx.events.page(9)).total == 0


async def test_when_the_event_cannot_be_written_the_state_is_not_either(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_all(store)

    async def broken(_events: Events, _event: object) -> None:
        raise OSError("in between")

    monkeypatch.setattr(Events, "add", broken)
    with pytest.raises(OSError, match="in between"):
        async with store.transaction() as tx:
            await tx.transition(VERSION, VersionState.FAILED, reason="R", message="m", actor="ak-1", now=NOW)
    async with store.reading() as tx:
        assert await tx.versions.get("vr-1") == VERSION
        assert (await tx.events.page(9)).total == 0


async def test_a_failure_after_a_transition_takes_both_back(store: Store) -> None:
    await add_all(store)

    async def break_off() -> None:
        async with store.transaction() as tx:
            await tx.transition(VERSION, VersionState.FAILED, reason="R", message="m", actor="ak-1", now=NOW)
            raise OSError("afterwards")

    with pytest.raises(OSError, match="afterwards"):
        await break_off()
    async with store.reading() as tx:
        assert await tx.versions.get("vr-1") == VERSION
        assert (await tx.events.page(9)).total == 0
