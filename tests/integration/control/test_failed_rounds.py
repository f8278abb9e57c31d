"""A round that the store ended half-way: what it was woken for is not forgotten, and the next round does it."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.integration.control.stage import Stage, a_wish, open_stage, ready_model
from tests.integration.control.world import World

from dockyard.domain.deployment import Deployment
from dockyard.domain.lifecycle import JobStatus
from dockyard.errors import Unavailable
from dockyard.services.deploys import deploy_model
from dockyard.services.jobs import get_job
from dockyard.store.deployments import Deployments

BUSY = Unavailable("the database is busy; try again")


async def until_ended(stage: Stage, *job_ids: str) -> None:
    """Rounds over what is due, as the loop makes them when it is woken; none looks at everything."""
    for _ in range(30):
        await stage.reconciler.work_due()
        await stage.quiet()
    for job_id in job_ids:
        assert (await get_job(stage.ctx, job_id)).status is JobStatus.SUCCESS


async def test_a_deploy_is_found_although_the_look_at_everything_failed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = await ready_model(stage)
    await stage.reconciler.work()
    job = await deploy_model(stage.ctx, model.model_id, a_wish(), "test")
    stage.reconciler.look_at_all()

    async def fail(_: Deployments) -> Sequence[Deployment]:
        raise BUSY

    with monkeypatch.context() as patch:
        patch.setattr(Deployments, "all_wanted_or_live", fail)
        with pytest.raises(Unavailable):
            await stage.reconciler.work_due()
    await until_ended(stage, job.job_id)


async def test_a_replica_is_routed_to_although_another_ones_row_could_not_be_written(tmp_path: Path) -> None:
    """Two replicas get ready at once; the first row is written, the second is not."""
    left = -1  # commits before one fails; below 0 none does

    def watch(committed: bool) -> None:
        nonlocal left
        if not committed:
            left -= 1
            if left == 0:
                raise BUSY

    async with open_stage(World(tmp_path), watch) as stage:
        model = await ready_model(stage)
        jobs = [await deploy_model(stage.ctx, model.model_id, a_wish(name), "test") for name in ("one", "other")]
        stage.fleet.auto_ready = False
        await stage.reconciler.work()
        for _ in range(4):
            await stage.reconciler.work_due()
        for replica_id in list(stage.fleet.statuses()):
            stage.fleet.make_ready(replica_id)
        left = 2
        with pytest.raises(Unavailable):
            await stage.reconciler.work_due()
        await until_ended(stage, *(job.job_id for job in jobs))
