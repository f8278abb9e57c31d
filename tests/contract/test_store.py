"""The repositories: what is written is found again, and conflicts are told."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dockyard.domain.access import ApiKey, App, Scope
from dockyard.domain.deployment import Deployment, Runtime, Version
from dockyard.domain.event import Event
from dockyard.domain.job import Action, Job
from dockyard.domain.lifecycle import ModelState, ReplicaState, VersionState
from dockyard.domain.model import Artifact, Model
from dockyard.domain.replica import Replica
from dockyard.domain.spec import DeploySpec, EngineName, HyperParameters, ModelType
from dockyard.errors import Conflict, Failed, NotFound, Reason, Stale
from dockyard.store.database import Store

NOW = datetime(2026, 2, 5, 11, 58, 3, 638_000, tzinfo=UTC)
MODEL = Model(
    model_id="cm-1", name="Flan T5", model_type=ModelType.OPEN_SOURCE, source={}, created_at=NOW, modified_at=NOW
)
DEPLOYMENT = Deployment(deployment_id="dp-1", model_id="cm-1", name="Flan", created_at=NOW, modified_at=NOW)
VERSION = Version(
    version_id="vr-1",
    deployment_id="dp-1",
    model_id="cm-1",
    number=1,
    name="Flan",
    spec=DeploySpec(hyper=HyperParameters(temperature=0.5, max_tokens=64, top_p=1, top_k=5), device_type="g5.xlarge"),
    runtime=Runtime(
        engine=EngineName.ECHO,
        device="cpu",
        gpus=0,
        compute_type="float32",
        runs_on="cpu",
        context_length=None,
        memory_bytes=1,
    ),
    job_id="ds-1",
    created_at=NOW,
    modified_at=NOW,
)
REPLICA = Replica(
    replica_id="rp-1", version_id="vr-1", deployment_id="dp-1", token="t", created_at=NOW, modified_at=NOW
)
JOB = Job(job_id="ds-1", model_id="cm-1", action=Action.DEPLOY, created_at=NOW, modified_at=NOW)
APP = App(app_id="app-1", name="ci", scopes=(Scope.VIEW, Scope.INFER), created_at=NOW)
KEY = ApiKey(key_id="ak-1", name="k", digest="d1", last_four="abcd", created_at=NOW, app_id="app-1")
ARTIFACT = Artifact(
    key="a1", source_key=None, engine=None, quantization=None, size_bytes=1, created_at=NOW, last_used_at=NOW
)
EVENT = Event(
    event_id="ev-1", at=NOW, subject="cm-1", before=None, after="Importing", reason="R", message="m", actor="ak-1"
)


async def add_deployed(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.models.add(MODEL)
        await tx.deployments.add(DEPLOYMENT)
        await tx.versions.add(VERSION)
        await tx.replicas.add(REPLICA)


async def test_get_names_what_is_missing_and_find_returns_none(store: Store) -> None:
    async with store.reading() as tx:
        assert await tx.models.find("cm-9") is None
        with pytest.raises(NotFound, match="no model cm-9"):
            await tx.models.get("cm-9")
        with pytest.raises(NotFound, match="no dock status ds-9"):
            await tx.jobs.get("ds-9")


async def test_save_returns_the_entity_at_its_next_revision(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.models.add(MODEL)
        saved = await tx.models.save(replace(MODEL, name="other"))
        assert saved == replace(MODEL, name="other", revision=1)
    async with store.reading() as tx:
        assert await tx.models.get("cm-1") == saved


async def test_saving_an_old_revision_is_stale_and_changes_nothing(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.models.add(MODEL)
        await tx.models.save(replace(MODEL, name="first"))
    async with store.transaction() as tx:
        with pytest.raises(Stale, match="cm-1") as stale:
            await tx.models.save(replace(MODEL, name="second"))
        assert stale.value.reason is Reason.CHANGED_MEANWHILE
    async with store.reading() as tx:
        assert (await tx.models.get("cm-1")).name == "first"


async def test_saving_what_was_deleted_is_stale(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.models.add(MODEL)
        await tx.models.delete("cm-1")
        with pytest.raises(Stale):
            await tx.models.save(MODEL)


async def test_an_id_a_key_digest_and_a_version_number_are_there_once(store: Store) -> None:
    await add_deployed(store)
    async with store.transaction() as tx:
        await tx.apps.add(APP)
        await tx.keys.add(KEY)
    with pytest.raises(Conflict) as conflict:
        async with store.transaction() as tx:
            await tx.models.add(MODEL)
    assert conflict.value.reason is Reason.ALREADY_EXISTS
    with pytest.raises(Conflict):
        async with store.transaction() as tx:
            await tx.keys.add(replace(KEY, key_id="ak-2"))
    with pytest.raises(Conflict):
        async with store.transaction() as tx:
            await tx.versions.add(replace(VERSION, version_id="vr-2"))


async def test_only_one_wanted_deployment_has_a_name(store: Store) -> None:
    gone = replace(DEPLOYMENT, deployment_id="dp-0", wanted=False)
    async with store.transaction() as tx:
        await tx.models.add(MODEL)
        await tx.deployments.add(gone)
        await tx.deployments.add(DEPLOYMENT)
    with pytest.raises(Conflict):
        async with store.transaction() as tx:
            await tx.deployments.save(replace(gone, wanted=True))


async def test_what_refers_to_nothing_is_refused(store: Store) -> None:
    with pytest.raises(Conflict) as conflict:
        async with store.transaction() as tx:
            await tx.deployments.add(DEPLOYMENT)
    assert conflict.value.reason is Reason.STILL_REFERENCED


async def test_a_model_and_its_artifact_may_be_written_in_either_order(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.models.add(replace(MODEL, artifact_key="a1"))
        await tx.artifacts.put(ARTIFACT)
    with pytest.raises(Conflict):
        async with store.transaction() as tx:
            await tx.artifacts.delete("a1")
    async with store.reading() as tx:
        assert await tx.models.by_artifact("a1") == [replace(MODEL, artifact_key="a1")]


async def test_a_key_belongs_to_an_app_or_to_a_deployment(store: Store) -> None:
    await add_deployed(store)
    async with store.transaction() as tx:
        await tx.apps.add(APP)
    for broken in (replace(KEY, app_id=None), replace(KEY, deployment_id="dp-1")):
        with pytest.raises(Failed):
            async with store.transaction() as tx:
                await tx.keys.add(broken)


async def test_deleting_a_model_takes_its_deployments_along_and_leaves_its_history(store: Store) -> None:
    await add_deployed(store)
    async with store.transaction() as tx:
        await tx.keys.add(replace(KEY, app_id=None, deployment_id="dp-1"))
        await tx.jobs.add(JOB)
        await tx.events.add(EVENT)
    async with store.transaction() as tx:
        await tx.models.delete("cm-1")
    async with store.reading() as tx:
        assert await tx.deployments.find("dp-1") is None
        assert await tx.versions.find("vr-1") is None
        assert await tx.replicas.find("rp-1") is None
        assert await tx.keys.find("ak-1") is None
        assert await tx.jobs.get("ds-1") == JOB
        assert await tx.events.get("ev-1") == EVENT


async def test_models_and_artifacts(store: Store) -> None:
    derived = replace(ARTIFACT, key="a2", source_key="a1", engine="ctranslate2")
    later = NOW + timedelta(days=1)
    async with store.transaction() as tx:
        await tx.artifacts.put(ARTIFACT)
        await tx.artifacts.put(derived)
        await tx.artifacts.put(replace(ARTIFACT, last_used_at=later))
        await tx.models.add(MODEL)
        await tx.models.add(replace(MODEL, model_id="cm-2", state=ModelState.READY, base_model_id="cm-1"))
    async with store.reading() as tx:
        assert [model.model_id for model in await tx.models.based_on("cm-1")] == ["cm-2"]
        assert sorted(model.model_id for model in await tx.models.all()) == ["cm-1", "cm-2"]
        assert await tx.artifacts.get("a1") == replace(ARTIFACT, last_used_at=later)
        assert await tx.artifacts.all() == [replace(ARTIFACT, last_used_at=later), derived]
        assert [model.model_id for model in (await tx.models.page(9, None, ModelState.READY)).items] == ["cm-2"]


async def test_deployments_and_versions(store: Store) -> None:
    newer = replace(DEPLOYMENT, deployment_id="dp-2", created_at=NOW + timedelta(1), wanted=False)
    retired = replace(VERSION, version_id="vr-2", deployment_id="dp-2", state=VersionState.RETIRED)
    second = replace(VERSION, version_id="vr-0", number=2, state=VersionState.DRAINING)
    await add_deployed(store)
    async with store.transaction() as tx:
        await tx.deployments.add(newer)
        await tx.versions.add(retired)
        await tx.versions.add(second)
    async with store.reading() as tx:
        assert await tx.deployments.named("Flan") == [newer, DEPLOYMENT]
        assert await tx.deployments.named("flan") == []
        assert await tx.deployments.of_model("cm-1") == [newer, DEPLOYMENT]
        assert await tx.deployments.all_wanted_or_live() == [DEPLOYMENT]
        assert await tx.versions.of_deployment("dp-1") == [VERSION, second]
        assert await tx.versions.live() == [VERSION, second]
        assert (await tx.versions.page("dp-2", 9)).items == (retired,)
    later = NOW + timedelta(hours=1)
    async with store.transaction() as tx:
        await tx.versions.add(replace(VERSION, version_id="vr-3", number=3, artifact_key="a9", modified_at=later))
        await tx.versions.add(replace(VERSION, version_id="vr-4", number=4, artifact_key="a9", modified_at=NOW))
        used = {(model, key): at for model, key, at in await tx.versions.last_use()}
        assert used == {("cm-1", VERSION.artifact_key): VERSION.modified_at, ("cm-1", "a9"): later}
    async with store.transaction() as tx:
        await tx.versions.save(replace(retired, state=VersionState.DRAINING))
        assert await tx.deployments.all_wanted_or_live() == [DEPLOYMENT, newer]


async def test_replicas(store: Store) -> None:
    await add_deployed(store)
    failed = replace(REPLICA, replica_id="rp-2", state=ReplicaState.FAILED, modified_at=NOW - timedelta(hours=2))
    stopped = replace(REPLICA, replica_id="rp-3", state=ReplicaState.STOPPED, stopped_at=NOW)
    async with store.transaction() as tx:
        await tx.replicas.add(failed)
        await tx.replicas.add(stopped)
    async with store.transaction() as tx:
        assert await tx.replicas.of_version("vr-1") == [REPLICA, failed, stopped]
        assert await tx.replicas.of_deployment("dp-1") == [REPLICA, failed, stopped]
        assert await tx.replicas.of_deployment("dp-1", living_only=True) == [REPLICA]
        assert await tx.replicas.living() == [REPLICA]
        assert await tx.replicas.ended_before(NOW - timedelta(hours=1)) == [failed]
        assert await tx.replicas.ended_beyond(2) == []
        assert await tx.replicas.ended_beyond(1) == [failed]  # the one that ended last stays
        assert await tx.replicas.ended_beyond(0) == [failed, stopped]
        await tx.replicas.delete(failed.replica_id)
        assert await tx.replicas.of_version("vr-1") == [REPLICA, stopped]


async def test_active_keys_come_with_the_scopes_of_their_app(store: Store) -> None:
    await add_deployed(store)
    inference = replace(KEY, key_id="ak-2", digest="d2", app_id=None, deployment_id="dp-1")
    revoked = replace(KEY, key_id="ak-3", digest="d3", revoked_at=NOW)
    async with store.transaction() as tx:
        await tx.apps.add(APP)
        for key in (KEY, inference, revoked):
            await tx.keys.add(key)
    async with store.reading() as tx:
        assert await tx.keys.all_active() == [(KEY, (Scope.VIEW, Scope.INFER)), (inference, ())]
        assert {key.key_id for key in (await tx.keys.page(9, app_id="app-1")).items} == {"ak-1"}
        assert await tx.keys.with_digest("d3") == revoked
        assert (await tx.keys.page(9, deployment_id="dp-1")).items == (inference,)


async def test_touching_a_key_moves_its_last_use_forward_only_and_survives_a_save(store: Store) -> None:
    later = NOW + timedelta(minutes=5)
    async with store.transaction() as tx:
        await tx.apps.add(APP)
        await tx.keys.add(KEY)
        await tx.keys.touch({"ak-1": later, "ak-9": later})
        await tx.keys.touch({"ak-1": NOW})
        await tx.keys.touch({})
        await tx.keys.save(replace(KEY, revoked_at=NOW))
    async with store.reading() as tx:
        assert await tx.keys.get("ak-1") == replace(KEY, last_used_at=later, revoked_at=NOW, revision=1)
