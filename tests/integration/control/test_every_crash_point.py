"""The server dies after each single commit of a deploy: whatever was written, the next one brings the job to its end.

Real store and real loops over a fake fleet, whose processes outlive the server as real ones do.
"""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.integration.control.stage import CrashingStore, Died, Stage, a_wish, open_stage, ready_model

from dockyard.domain.job import Action, Job
from dockyard.domain.lifecycle import JobStatus, ReplicaState
from dockyard.fleets.fake import FakeFleet, FakeMachine
from dockyard.loops.observe import settle_after_restart
from dockyard.services.deploys import deploy_model, undeploy_model

MOST_COMMITS = 40


@dataclass
class World:
    """What outlives a server: the database file, the processes, the finished artifacts."""

    url: str
    machine: FakeMachine = field(default_factory=FakeMachine)
    artifacts: set[str] = field(default_factory=set)


async def _until_settled(stage: Stage, job: Job) -> Job:
    for _ in range(200):
        await stage.round()
        async with stage.ctx.store.reading() as tx:
            job = await tx.jobs.get(job.job_id)
        if job.ended:
            return job
    raise AssertionError(f"still in progress: {job}")


async def _die_and_come_back(world: World, store: CrashingStore, optimization: bool) -> bool:
    """Deploy, redeploy and undeploy on a store that dies after its n-th commit; then let a new server finish.

    Returns whether it died at all.
    """
    died = False
    try:
        async with open_stage(world, store) as stage:
            model = await ready_model(stage)
            for step in range(3):
                job = (
                    await undeploy_model(stage.ctx, model.model_id, None, "test")
                    if step == 2
                    else await deploy_model(stage.ctx, model.model_id, a_wish(optimization=optimization), "test")
                )
                await _until_settled(stage, job)
    except Died:
        died = True
    async with open_stage(world, CrashingStore(world.url)) as stage:
        await settle_after_restart(stage.ctx)
        async with stage.ctx.store.reading() as tx:
            open_jobs = await tx.jobs.in_progress()
        for job in open_jobs:
            ended = await _until_settled(stage, job)
            assert ended.status is JobStatus.SUCCESS, ended
        await stage.settle()
        async with stage.ctx.store.reading() as tx:
            living = await tx.replicas.living()
            jobs = (await tx.jobs.page(10)).items
        undeployed = any(job.action is Action.UNDEPLOY for job in jobs)
        deployed = any(job.action is Action.DEPLOY for job in jobs)
        assert [replica.state for replica in living] == ([ReplicaState.READY] if deployed and not undeployed else [])
        assert set(world.machine.running) == {replica.replica_id for replica in living}
    return died


@pytest.mark.parametrize("optimization", [False, True], ids=["transformers", "ctranslate2"])
async def test_a_deploy_survives_death_after_any_commit(tmp_path: Path, optimization: bool) -> None:
    for commits in range(1, MOST_COMMITS):
        world = World(f"sqlite+aiosqlite:///{tmp_path / f'{optimization}-{commits}.db'}")
        if not await _die_and_come_back(world, CrashingStore(world.url, die_after=commits), optimization):
            assert commits > 10
            return
    raise AssertionError("the whole story took more commits than were tried")


async def test_a_fake_fleet_is_enough_for_this(tmp_path: Path) -> None:
    world = World(f"sqlite+aiosqlite:///{tmp_path / 'd.db'}")
    async with open_stage(world, CrashingStore(world.url)) as stage:
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
