"""The server dies around each single commit of a deploy: whatever was written, the next one brings the job to its end.

Real store and real loops over a fake fleet, whose processes outlive the server as real ones do.
"""

from pathlib import Path

import pytest
from tests.integration.control.stage import Stage, a_wish, open_stage, ready_model
from tests.integration.control.world import World

from dockyard.domain.job import Action, Job
from dockyard.domain.lifecycle import JobStatus, ReplicaState
from dockyard.fleets.fake import FakeFleet
from dockyard.loops.observe import settle_after_restart
from dockyard.services.deploys import deploy_model, undeploy_model


async def _until_settled(stage: Stage, job: Job) -> Job:
    for _ in range(200):
        await stage.round()
        async with stage.ctx.store.reading() as tx:
            job = await tx.jobs.get(job.job_id)
        if job.ended:
            return job
    raise AssertionError(f"still in progress: {job}")


async def _worlds_left_behind(folder: Path, optimization: bool) -> list[World]:
    """Deploy, redeploy and undeploy; what there was after each commit, and before each one with effects to record."""
    (folder / "whole").mkdir()
    whole, left = World(folder / "whole"), list[World]()

    def keep(committed: bool) -> None:
        if committed or (left and left[-1].effects != whole.effects):
            left.append(whole.copy(folder / f"{len(left):02}-{'after' if committed else 'before'}"))

    async with open_stage(whole, keep) as stage:
        model = await ready_model(stage)
        for _ in range(2):
            job = await deploy_model(stage.ctx, model.model_id, a_wish(optimization=optimization), "test")
            assert (await _until_settled(stage, job)).status is JobStatus.SUCCESS
        job = await undeploy_model(stage.ctx, model.model_id, None, "test")
        assert (await _until_settled(stage, job)).status is JobStatus.SUCCESS
    return left


async def _come_back(world: World) -> None:
    """A new server on what the dead one left brings everything that was begun to its end."""
    async with open_stage(world) as stage:
        await settle_after_restart(stage.ctx)
        async with stage.ctx.store.reading() as tx:
            open_jobs = await tx.jobs.in_progress()
        for job in open_jobs:
            ended = await _until_settled(stage, job)
            assert ended.status is JobStatus.SUCCESS, (world.folder, ended)
        await stage.settle()
        async with stage.ctx.store.reading() as tx:
            living = await tx.replicas.living()
            jobs = (await tx.jobs.page(10)).items
        undeployed = any(job.action is Action.UNDEPLOY for job in jobs)
        deployed = any(job.action is Action.DEPLOY for job in jobs)
        expected = [ReplicaState.READY] if deployed and not undeployed else []
        assert [replica.state for replica in living] == expected, world.folder
        assert set(world.machine.running) == {replica.replica_id for replica in living}, world.folder


@pytest.mark.parametrize("optimization", [False, True], ids=["transformers", "ctranslate2"])
async def test_a_deploy_survives_death_before_and_after_any_commit(tmp_path: Path, optimization: bool) -> None:
    worlds = await _worlds_left_behind(tmp_path, optimization)
    assert len(worlds) > 10
    assert any(world.folder.name.endswith("before") for world in worlds)
    for world in worlds:
        await _come_back(world)


async def test_a_fake_fleet_is_enough_for_this(stage: Stage) -> None:
    assert isinstance(stage.fleet, FakeFleet)
    model = await ready_model(stage)
    job = await deploy_model(stage.ctx, model.model_id, a_wish(), "test")
    ended = await _until_settled(stage, job)
    assert [line.phase for line in ended.logs] == [
        "VALIDATING",
        "PROVISIONING",
        "LOADING",
        "WARMING_UP",
        "ROUTING",
        "DONE",
    ]
