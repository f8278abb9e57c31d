"""What a deploy, redeploy, cancel, undeploy and delete do and refuse: real store and loops, fake processes."""

from dataclasses import replace

import pytest
from tests.integration.control.stage import Stage, a_wish, ready_model

from dockyard.domain.devices import MIB
from dockyard.domain.fit import HOST_RESERVE
from dockyard.domain.job import Job
from dockyard.domain.lifecycle import DeploymentState, JobStatus, VersionState
from dockyard.domain.model import Model
from dockyard.domain.spec import EngineName, ModelType, Quantization
from dockyard.errors import Conflict, DockyardError, Failed, Invalid, Reason
from dockyard.protocols.generation import ReplicaPhase
from dockyard.services.deployments import get_deployment, list_deployments
from dockyard.services.deploys import deploy_model, plan_deploy, rollback, undeploy_model
from dockyard.services.jobs import cancel_job, get_job
from dockyard.services.models import delete_model


async def settled(stage: Stage, job: Job) -> Job:
    await stage.settle()
    return await get_job(stage.ctx, job.job_id)


async def deployed(stage: Stage, model: Model, name: str = "chat") -> Job:
    ended = await settled(stage, await deploy_model(stage.ctx, model.model_id, a_wish(name), "test"))
    assert ended.status is JobStatus.SUCCESS, ended
    return ended


def reason_of(caught: pytest.ExceptionInfo[DockyardError]) -> Reason:
    return caught.value.reason


async def test_a_failed_redeploy_leaves_the_old_version_serving(stage: Stage) -> None:
    model = await ready_model(stage)
    first = await deployed(stage, model)
    before = stage.router.routes[first.deployment_id or ""]
    stage.preparer.refusal = Failed("no", reason=Reason.CONVERSION_FAILED, log_tail=("last words",))
    ended = await settled(stage, await deploy_model(stage.ctx, model.model_id, a_wish(optimization=True), "test"))
    assert (ended.status, ended.reason, ended.log_tail) == (
        JobStatus.FAILED,
        Reason.CONVERSION_FAILED,
        ("last words",),
    )
    assert stage.router.routes[first.deployment_id or ""] == before
    view = await get_deployment(stage.ctx, first.deployment_id or "")
    assert view.state is DeploymentState.DEPLOYED
    assert [version.state for version in view.versions] == [VersionState.DEPLOYED, VersionState.FAILED]


@pytest.mark.parametrize("seen", [(), ("loading",), ("warming_up",), ("loading", "warming_up")])
async def test_the_status_logs_tell_every_phase_in_order_however_few_were_seen(
    stage: Stage, seen: tuple[ReplicaPhase, ...]
) -> None:
    stage.fleet.auto_ready = False
    job = await deploy_model(stage.ctx, (await ready_model(stage)).model_id, a_wish(), "test")
    await stage.settle()
    (replica,) = stage.fleet.machine.running
    for phase in seen:
        stage.fleet.report(replica, phase)
        await stage.round()
    stage.fleet.make_ready(replica, capacity=1)
    ended = await settled(stage, job)
    phases = ["VALIDATING", "PROVISIONING", "LOADING", "WARMING_UP", "ROUTING", "DONE"]
    assert [line.phase for line in ended.logs] == phases
    assert not [line.message for line in ended.logs if "0 of 1" in line.message]


async def test_a_redeploy_switches_the_route_and_stops_the_old_replica(stage: Stage) -> None:
    model = await ready_model(stage)
    first = await deployed(stage, model)
    old = set(stage.fleet.machine.running)
    second = await deployed(stage, model)
    assert (second.deployment_id, second.deployment_version) == (first.deployment_id, 2)
    assert stage.router.routes[first.deployment_id or ""].version_id == second.version_id
    assert not old & set(stage.fleet.machine.running)
    assert len(stage.fleet.machine.running) == 1


async def test_a_replica_that_is_busy_drains_before_it_stops(stage: Stage) -> None:
    model = await ready_model(stage)
    await deployed(stage, model)
    (old,) = stage.fleet.machine.running
    stage.router.running[old] = 1
    await deployed(stage, model)
    assert old in stage.fleet.machine.running
    stage.router.running.clear()
    await stage.settle()
    assert old not in stage.fleet.machine.running


async def test_a_crashed_replica_is_replaced_and_the_route_follows(stage: Stage) -> None:
    first = await deployed(stage, await ready_model(stage))
    (old,) = stage.fleet.machine.running
    stage.fleet.crash(old)
    await stage.settle()
    (new,) = stage.fleet.machine.running
    assert new != old
    assert [replica.replica_id for replica in stage.router.routes[first.deployment_id or ""].replicas] == [new]


async def test_a_failure_that_would_repeat_itself_ends_the_deploy_at_once(stage: Stage) -> None:
    stage.fleet.auto_ready = False
    job = await deploy_model(stage.ctx, (await ready_model(stage)).model_id, a_wish(), "test")
    await stage.settle()
    (replica,) = stage.fleet.machine.running
    stage.fleet.crash(replica, reason=Reason.ARTIFACT_CORRUPT, message="weights differ", retryable=False)
    ended = await settled(stage, job)
    assert (ended.status, ended.reason, ended.message) == (JobStatus.FAILED, Reason.ARTIFACT_CORRUPT, "weights differ")
    assert ended.log_tail
    assert len(stage.fleet.started) == 1


async def test_a_host_without_room_refuses_before_it_starts(stage: Stage) -> None:
    stage.host = replace(stage.host, available_bytes=300 * MIB)
    model = await ready_model(stage)
    plan = await plan_deploy(stage.ctx, model.model_id, a_wish())
    assert any("memory" in warning for warning in plan.warnings)
    ended = await settled(stage, await deploy_model(stage.ctx, model.model_id, a_wish(), "test"))
    assert (ended.status, ended.reason) == (JobStatus.FAILED, Reason.NO_CAPACITY)
    assert "GiB" in ended.message
    assert stage.fleet.started == []


async def test_a_greedy_version_of_the_past_takes_no_room(stage: Stage) -> None:
    """Only versions that may still start count for the room that the host needs."""
    model = await ready_model(stage)
    wish = a_wish(max_batch_size=256)
    await settled(stage, await deploy_model(stage.ctx, model.model_id, wish, "test"))
    await deployed(stage, model)
    view = (await list_deployments(stage.ctx, 1, None)).items[0]
    greedy, modest = (version.runtime.memory_bytes for version in view.versions)
    stage.host = replace(stage.host, available_bytes=HOST_RESERVE + (greedy + modest) // 2)
    await deployed(stage, model)


async def test_a_quiet_round_writes_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await deployed(stage, await ready_model(stage))
    monkeypatch.setattr(stage.ctx.store, "transaction", None)  # a round that tried to write would fail
    await stage.round()


async def test_cancel_takes_back_what_was_begun(stage: Stage) -> None:
    stage.fleet.auto_ready = False
    model = await ready_model(stage)
    job = await deploy_model(stage.ctx, model.model_id, a_wish(), "test")
    await stage.settle()
    assert stage.fleet.machine.running
    await cancel_job(stage.ctx, job.job_id)
    ended = await settled(stage, job)
    assert (ended.status, ended.reason) == (JobStatus.FAILED, Reason.CANCELLED)
    assert not stage.fleet.machine.running
    with pytest.raises(Conflict) as caught:
        await cancel_job(stage.ctx, job.job_id)
    assert reason_of(caught) is Reason.JOB_ENDED


async def test_one_job_at_a_time_for_a_deployment(stage: Stage) -> None:
    model = await ready_model(stage)
    await deploy_model(stage.ctx, model.model_id, a_wish(), "test")
    for attempt in (
        deploy_model(stage.ctx, model.model_id, a_wish(), "test"),
        undeploy_model(stage.ctx, model.model_id, None, "test"),
    ):
        with pytest.raises(Conflict) as caught:
            await attempt
        assert reason_of(caught) is Reason.JOB_IN_PROGRESS
    await deploy_model(stage.ctx, model.model_id, a_wish("another"), "test")


async def test_a_deploy_must_wait_for_an_undeploy_of_all(stage: Stage) -> None:
    model = await ready_model(stage)
    await deployed(stage, model, "a")
    await deployed(stage, model, "b")
    undeploy = await undeploy_model(stage.ctx, model.model_id, None, "test")
    with pytest.raises(Conflict) as caught:
        await deploy_model(stage.ctx, model.model_id, a_wish("b"), "test")
    assert reason_of(caught) is Reason.JOB_IN_PROGRESS
    assert (await settled(stage, undeploy)).status is JobStatus.SUCCESS
    assert stage.router.routes == {}
    assert not stage.fleet.machine.running
    again = await deployed(stage, model, "b")
    assert again.deployment_version == 2


async def test_a_name_belongs_to_its_model_until_it_is_undeployed(stage: Stage) -> None:
    one, two = await ready_model(stage, "one"), await ready_model(stage, "two")
    await deployed(stage, one)
    with pytest.raises(Conflict) as caught:
        await deploy_model(stage.ctx, two.model_id, a_wish(), "test")
    assert reason_of(caught) is Reason.NAME_TAKEN
    await settled(stage, await undeploy_model(stage.ctx, one.model_id, "chat", "test"))
    await deployed(stage, two)
    with pytest.raises(Conflict) as caught:
        await deploy_model(stage.ctx, one.model_id, a_wish(), "test")
    assert reason_of(caught) is Reason.NAME_TAKEN


async def test_rollback_deploys_the_old_parameters_as_a_new_version(stage: Stage) -> None:
    model = await ready_model(stage)
    first = await deployed(stage, model)
    wish = a_wish(max_batch_size=3)
    await settled(stage, await deploy_model(stage.ctx, model.model_id, wish, "test"))
    back = await settled(stage, await rollback(stage.ctx, first.deployment_id or "", 1, "test"))
    assert (back.status, back.deployment_version) == (JobStatus.SUCCESS, 3)
    view = await get_deployment(stage.ctx, first.deployment_id or "")
    assert [version.spec.scaling.max_batch_size for version in view.versions] == [10, 3, 10]


async def test_all_problems_are_told_at_once(stage: Stage) -> None:
    model = await ready_model(stage)
    wish = a_wish()
    wish = replace(
        wish,
        model_type=ModelType.FINE_TUNE,
        spec=replace(wish.spec, optimization=EngineName.TRANSFORMERS, quantization=Quantization.INT8_FLOAT16),
    )
    with pytest.raises(Invalid) as caught:
        await deploy_model(stage.ctx, model.model_id, wish, "test")
    assert {problem.reason for problem in caught.value.problems} == {
        Reason.MODEL_TYPE_MISMATCH,
        Reason.QUANTIZATION_NOT_SUPPORTED,
    }


async def test_vllm_is_checked_and_then_refused_as_not_installed(stage: Stage) -> None:
    wish = a_wish()
    wish = replace(wish, spec=replace(wish.spec, optimization=EngineName.VLLM))
    with pytest.raises(Invalid, match="not installed") as caught:
        await deploy_model(stage.ctx, (await ready_model(stage)).model_id, wish, "test")
    assert reason_of(caught) is Reason.ENGINE_NOT_INSTALLED


async def test_a_model_is_deleted_once_nothing_serves_it_and_shared_files_stay(stage: Stage) -> None:
    one, two = await ready_model(stage, "one"), await ready_model(stage, "two")
    await deployed(stage, one)
    with pytest.raises(Conflict) as caught:
        await delete_model(stage.ctx, one.model_id)
    assert reason_of(caught) is Reason.STILL_DEPLOYED
    await settled(stage, await undeploy_model(stage.ctx, one.model_id, None, "test"))
    assert await delete_model(stage.ctx, one.model_id) == 0
    assert stage.preparer.discarded == []
    assert await delete_model(stage.ctx, two.model_id) == 10
    assert stage.preparer.discarded == ["weights"]
    assert (await list_deployments(stage.ctx, 10, None)).total == 0
