"""Deployments share the GPUs of one host: who gets one, who waits for one, and who is told that there is none."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.integration.control.stage import CARD, FakePreparer, Stage, a_wish, open_stage, ready_model
from tests.integration.control.world import World

from dockyard.domain.adapter import AdapterCard
from dockyard.domain.deployment import CRASH_LOOP_AFTER
from dockyard.domain.devices import GIB
from dockyard.domain.event import Event
from dockyard.domain.fit import HOST_RESERVE, SEAT
from dockyard.domain.job import Job
from dockyard.domain.lifecycle import JobStatus
from dockyard.domain.model import Model
from dockyard.domain.replica import Replica
from dockyard.domain.spec import EngineName, ModelType
from dockyard.errors import Invalid, Reason
from dockyard.fleets.local.gpus import GpuPatience
from dockyard.services.deploy_checks import DeployWish
from dockyard.services.deploys import deploy_model, plan_deploy, undeploy_model

NOBODY = 2**22 + 1  # no process has that number
SELDOM = GpuPatience(look_every_s=3600, release_every_s=3600)  # tests look when it matters


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, gpu_patience=SELDOM)
    world.gpus.add()
    return world


async def deployed(stage: Stage, model: Model, name: str, **scaling: Any) -> Job:
    job = await deploy_model(stage.ctx, model.model_id, a_wish(name, **scaling), "test")
    await stage.settle()
    async with stage.store.reading() as tx:
        return await tx.jobs.get(job.job_id)


async def fine_tune(stage: Stage, name: str) -> Model:
    """An adapter on one base."""
    adapter = AdapterCard(base_key="base", rank=8, parameters=1, modules=("q_proj",), plain=True)
    tuned = replace(CARD, adapter=adapter)
    return await ready_model(stage, name, model_type=ModelType.FINE_TUNE, artifact_key=f"own-{name}", card=tuned)


def on_vllm(name: str, **scaling: Any) -> DeployWish:
    plain = a_wish(name, **scaling)
    return replace(plain, model_type=ModelType.FINE_TUNE, spec=replace(plain.spec, optimization=EngineName.VLLM))


async def deployed_on_vllm(stage: Stage, model: Model, **scaling: Any) -> Job:
    job = await deploy_model(stage.ctx, model.model_id, on_vllm(model.name, **scaling), "test")
    await stage.settle()
    async with stage.store.reading() as tx:
        return await tx.jobs.get(job.job_id)


async def living(stage: Stage) -> list[Replica]:
    async with stage.store.reading() as tx:
        return await tx.replicas.living()


async def events(stage: Stage, deployment_id: str, reason: str) -> list[Event]:
    async with stage.store.reading() as tx:
        page = await tx.events.page(200, None, deployment_id=deployment_id)
    return [event for event in page.items if event.reason == reason and event.subject == deployment_id]


async def test_a_replica_has_its_gpu_in_its_row_and_its_spec(world: World) -> None:
    async with open_stage(world) as stage:
        job = await deployed(stage, await ready_model(stage), "one")
        assert job.status is JobStatus.SUCCESS
        assert job.response is not None
        assert job.response["runsOn"] == "1 × NVIDIA A10G (standing in for g5.xlarge)"
        assert (job.response["device"], job.response["computeType"]) == ("cuda", "bfloat16")
        (replica,) = await living(stage)
        (gpu,) = stage.fleet.gpus.seen()
        assert replica.gpus == (gpu.uuid,)
        assert gpu.replica_id == replica.replica_id
        (spec,) = stage.fleet.started
        assert (spec.device, spec.gpus, spec.gpu_ids) == ("cuda", 1, [gpu.uuid])
        assert 0 < spec.gpu_bytes < gpu.total_bytes
        assert spec.gpu_environment()["CUDA_VISIBLE_DEVICES"] == gpu.uuid


async def test_two_deployments_compete_for_one_gpu(world: World) -> None:
    async with open_stage(world) as stage:
        model = await ready_model(stage)
        assert (await deployed(stage, model, "first")).status is JobStatus.SUCCESS
        plan = await plan_deploy(stage.ctx, model.model_id, a_wish("second"))
        assert any("the host has them for 0 now" in warning for warning in plan.warnings)
        second = await deployed(stage, model, "second")
        assert (second.status, second.reason) == (JobStatus.FAILED, Reason.NO_CAPACITY)
        assert "1 GPU(s) free" in second.message
        assert len(await living(stage)) == 1
        await undeploy_model(stage.ctx, model.model_id, None, "test")
        await stage.settle()
        await stage.fleet.gpus.look()
        assert (await deployed(stage, model, "second")).status is JobStatus.SUCCESS


async def test_a_gpu_that_others_fill_is_no_room(world: World) -> None:
    async with open_stage(world) as stage:
        (gpu,) = stage.fleet.gpus.seen()
        world.gpus.use(gpu.uuid, NOBODY, 22.4)
        await stage.fleet.gpus.look()
        job = await deployed(stage, await ready_model(stage), "one")
        assert (job.status, job.reason) == (JobStatus.FAILED, Reason.NO_CAPACITY)
        assert stage.fleet.started == []


async def test_the_memory_of_a_killed_replica_is_waited_for_and_that_is_told(world: World) -> None:
    async with open_stage(world) as stage:
        job = await deployed(stage, await ready_model(stage), "one", max_replicas=1)
        (killed,) = await living(stage)
        world.gpus.use(killed.gpus[0], NOBODY, 3)
        stage.fleet.crash(killed.replica_id)
        await stage.settle()
        assert await living(stage) == []
        (told,) = await events(stage, job.deployment_id or "", "WAITS_FOR_GPU")
        assert "3.00 GiB of its memory are not free yet" in told.message
        assert await events(stage, job.deployment_id or "", "NO_CAPACITY") == []
        world.gpus.free(killed.gpus[0])
        stage.fleet.changed.clear()
        await stage.fleet.gpus.look()
        assert stage.fleet.changed.is_set()  # which wakes the loop
        await stage.reconciler.work_due()  # it looks at who was short, and not at all
        (after,) = await living(stage)
        assert after.replica_id != killed.replica_id
        assert after.gpus == killed.gpus


async def test_memory_that_never_comes_back_ends_the_wait_with_the_reason(world: World) -> None:
    world.gpu_patience = replace(SELDOM, release_within_s=0)
    async with open_stage(world) as stage:
        job = await deployed(stage, await ready_model(stage), "one", max_replicas=1)
        (killed,) = await living(stage)
        world.gpus.use(killed.gpus[0], NOBODY, 22.4)
        stage.fleet.crash(killed.replica_id)
        await stage.fleet.gpus.look()
        await stage.settle()
        assert await living(stage) == []
        (told,) = await events(stage, job.deployment_id or "", "NO_CAPACITY")
        assert "GPU 0 0.10 GiB free" in told.message


async def test_an_adopted_replica_keeps_its_gpu(world: World) -> None:
    async with open_stage(world) as stage:
        model = await ready_model(stage)
        await deployed(stage, model, "one")
        (before,) = await living(stage)
    async with open_stage(world) as stage:
        await stage.settle()
        (adopted,) = await living(stage)
        assert (adopted.replica_id, adopted.gpus) == (before.replica_id, before.gpus)
        assert stage.fleet.gpus.seen()[0].replica_id == adopted.replica_id
        assert (await deployed(stage, model, "two")).reason is Reason.NO_CAPACITY


async def test_a_replica_that_died_with_the_server_leaves_its_gpu_when_its_memory_is_free(world: World) -> None:
    async with open_stage(world) as stage:
        await deployed(stage, await ready_model(stage), "one")
        (before,) = await living(stage)
    world.machine.kill(before.replica_id)
    world.gpus.use(before.gpus[0], NOBODY, 3)
    async with open_stage(world) as stage:
        assert stage.fleet.gpus.seen()[0].awaits
        world.gpus.free(before.gpus[0])
        await stage.fleet.gpus.look()
        await stage.settle()
        (after,) = await living(stage)
        assert after.gpus == before.gpus


async def test_a_crash_loop_gets_the_same_gpu_each_time_and_leaves_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dockyard.domain.replica_plan.restart_back_off_s", lambda failures, starts: 0.0)
    async with open_stage(world) as stage:
        stage.fleet.auto_ready = False
        model = await ready_model(stage)
        job = await deployed(stage, model, "broken")
        for _ in range(CRASH_LOOP_AFTER):
            (replica,) = await living(stage)
            stage.fleet.crash(replica.replica_id)
            await stage.fleet.gpus.look()
            await stage.settle()
        (gpu,) = stage.fleet.gpus.seen()
        assert [spec.gpu_ids for spec in stage.fleet.started] == CRASH_LOOP_AFTER * [[gpu.uuid]]
        assert gpu.replica_id is None
        async with stage.store.reading() as tx:
            assert (await tx.jobs.get(job.job_id)).reason is Reason.ENGINE_CRASHED
        stage.fleet.auto_ready = True
        assert (await deployed(stage, model, "sound")).status is JobStatus.SUCCESS


async def test_the_autoscaler_has_no_more_than_the_gpus_and_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.gpus.add()
    async with open_stage(world) as stage:
        job = await deployed(stage, await ready_model(stage), "one", max_replicas=4)
        monkeypatch.setattr(stage.autoscaler, "desired", lambda deployment_id: 4)
        await stage.settle()
        replicas = await living(stage)
        assert {replica.gpus for replica in replicas} == {(gpu.uuid,) for gpu in stage.fleet.gpus.seen()}
        (told,) = await events(stage, job.deployment_id or "", "NO_CAPACITY")
        assert "no room for 2 more replica(s) of 1 GPU(s)" in told.message
        assert f"GPU 0 {replicas[0].replica_id}'s" in told.message


async def test_a_broken_driver_lets_the_cpu_stand_in_and_says_why(world: World) -> None:
    async with open_stage(world) as stage:
        stage.host = replace(stage.host, gpu_trouble="NVML says: version mismatch; reboot the machine")
        world.gpus.trouble = "NVML says: version mismatch"
        await stage.fleet.gpus.look()
        plan = await plan_deploy(stage.ctx, (await ready_model(stage)).model_id, a_wish("one"))
        assert plan.runtime.device == "cpu"
        assert any("reboot the machine" in warning for warning in plan.warnings)


async def test_an_engine_built_for_cpus_is_refused_before_it_starts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_stage(world) as stage:
        model = await ready_model(stage)
        monkeypatch.setattr(stage.preparer, "without_gpus", lambda engine: "it is a build for CPUs: install another")
        with pytest.raises(Invalid, match="cannot use them: it is a build for CPUs: install another") as caught:
            await plan_deploy(stage.ctx, model.model_id, a_wish("one"))
        assert caught.value.reason is Reason.ENGINE_CANNOT_USE_GPU
        stage.host = replace(stage.host, available_bytes=6 * GIB)
        world.gpus.break_down(stage.fleet.gpus.seen()[0].uuid, "it is lost")
        await stage.fleet.gpus.look()
        assert (await plan_deploy(stage.ctx, model.model_id, a_wish("one"))).runtime.device == "cpu"


@pytest.fixture
def with_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakePreparer, "version", lambda self, engine: "1.0")


@pytest.mark.usefixtures("with_vllm")
async def test_fine_tunes_of_one_base_share_a_gpu_and_others_find_none(world: World) -> None:
    async with open_stage(world) as stage:
        poems, prose, verse = [await fine_tune(stage, name) for name in ("poems", "prose", "verse")]
        jobs = [await deployed_on_vllm(stage, model) for model in (poems, prose)]
        assert [job.status for job in jobs] == 2 * [JobStatus.SUCCESS]
        one, two = await living(stage)
        (gpu,) = stage.fleet.gpus.seen()
        assert one.gpus == two.gpus == (gpu.uuid,)
        assert one.engine_group == two.engine_group != ""
        other = await deployed_on_vllm(stage, verse, max_batch_size=7)
        assert (other.status, other.reason) == (JobStatus.FAILED, Reason.NO_CAPACITY)
        again = await deployed_on_vllm(stage, poems)  # a new version beside the old one, on the same GPU
        assert again.status is JobStatus.SUCCESS
        await undeploy_model(stage.ctx, poems.model_id, None, "test")
        await stage.settle()
        await stage.fleet.gpus.look()
        assert [replica.replica_id for replica in await living(stage)] == [two.replica_id]
        assert stage.fleet.gpus.seen()[0].replica_id == two.replica_id
        await undeploy_model(stage.ctx, prose.model_id, None, "test")
        await stage.settle()
        await stage.fleet.gpus.look()
        assert stage.fleet.gpus.seen()[0].replica_id is None
        assert (await deployed_on_vllm(stage, verse, max_batch_size=7)).status is JobStatus.SUCCESS


@pytest.mark.usefixtures("with_vllm")
async def test_a_fine_tune_that_crashes_takes_its_place_again(world: World) -> None:
    async with open_stage(world) as stage:
        for name in ("poems", "prose"):
            await deployed_on_vllm(stage, await fine_tune(stage, name), max_replicas=1)
        first, second = await living(stage)
        stage.fleet.crash(first.replica_id)
        await stage.settle()
        assert {replica.replica_id for replica in await living(stage)} > {second.replica_id}
        assert {replica.gpus for replica in await living(stage)} == {first.gpus}


@pytest.mark.usefixtures("with_vllm")
async def test_a_new_server_knows_who_shares_a_gpu(world: World) -> None:
    async with open_stage(world) as stage:
        for name in ("poems", "prose"):
            await deployed_on_vllm(stage, await fine_tune(stage, name))
        before = await living(stage)
    async with open_stage(world) as stage:
        await stage.settle()
        assert [replica.replica_id for replica in await living(stage)] == [replica.replica_id for replica in before]
        job = await deployed_on_vllm(stage, await fine_tune(stage, "verse"))
        assert job.status is JobStatus.SUCCESS
        assert {replica.gpus for replica in await living(stage)} == {before[0].gpus}


@pytest.mark.usefixtures("with_vllm")
async def test_more_replicas_have_engines_of_their_own_and_others_join_those(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.gpus.add()
    async with open_stage(world) as stage:
        poems = await deployed_on_vllm(stage, await fine_tune(stage, "poems"), min_replicas=2, max_replicas=4)
        prose = await deployed_on_vllm(stage, await fine_tune(stage, "prose"), min_replicas=2)
        assert [job.status for job in (poems, prose)] == 2 * [JobStatus.SUCCESS]
        both = {(gpu.uuid,) for gpu in stage.fleet.gpus.seen()}
        for job in (poems, prose):
            assert {r.gpus for r in await living(stage) if r.deployment_id == job.deployment_id} == both
        monkeypatch.setattr(stage.autoscaler, "desired", lambda deployment_id: 3)
        await stage.settle()
        assert len(await living(stage)) == 4
        assert await events(stage, poems.deployment_id or "", "NO_CAPACITY")


@pytest.mark.usefixtures("with_vllm")
async def test_on_a_cpu_one_that_joins_needs_no_room_for_the_weights(world: World) -> None:
    world.gpus.break_down(world.gpus.read().gpus[0].uuid, "it is lost")
    async with open_stage(world) as stage:
        await deployed_on_vllm(stage, await fine_tune(stage, "poems"), max_replicas=1)
        stage.host = replace(stage.host, available_bytes=HOST_RESERVE + SEAT + 4)
        joins = await deployed_on_vllm(stage, await fine_tune(stage, "prose"), max_replicas=1)
        assert joins.status is JobStatus.SUCCESS
        apart = await deployed_on_vllm(stage, await fine_tune(stage, "verse"), max_replicas=1, max_batch_size=7)
        assert (apart.status, apart.reason) == (JobStatus.FAILED, Reason.NO_CAPACITY)
