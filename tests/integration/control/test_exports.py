"""Export jobs from request to expiry: real store, service and loop, a preparer that packs nothing."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.integration.control.stage import Stage, a_wish, open_stage, ready_model
from tests.integration.control.world import World

from dockyard.domain.export import KEPT_FOR
from dockyard.domain.job import Job
from dockyard.domain.lifecycle import JobStatus, ModelState
from dockyard.errors import Conflict, Failed, Forbidden, NotFound, Reason
from dockyard.loops.exports import remove_expired_archives
from dockyard.services.deploys import deploy_model, undeploy_model
from dockyard.services.exports import Archive, export_model, open_archive
from dockyard.services.jobs import cancel_job, get_job
from dockyard.services.models import delete_model


class At:
    """A clock that stands still."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return 0.0


def later(stage: Stage, by: timedelta) -> Stage:
    """The same stage at another time."""
    return replace(stage, ctx=replace(stage.ctx, clock=At(datetime.now(UTC) + by)))


async def exported(stage: Stage, job: Job) -> Job:
    await stage.settle()
    ended = await get_job(stage.ctx, job.job_id)
    assert ended.status is JobStatus.SUCCESS, ended
    return ended


async def fetched(stage: Stage, job: Job) -> Archive:
    """What the link in the job's response opens."""
    assert job.response
    parts = urlsplit(job.response["downloadUrl"])
    query = parse_qs(parts.query)
    assert parts.path == f"/api/public/downloads/{job.job_id}"
    return await open_archive(stage.ctx, job.job_id, int(query["expires"][0]), query["signature"][0])


async def test_a_model_that_was_never_deployed_goes_without_parameters(stage: Stage) -> None:
    model = await ready_model(stage, "Flan T5")
    job = await exported(stage, await export_model(stage.ctx, model.model_id, None, "test"))
    assert job.request["deployConfig"] == {"name": "Flan-T5", "modelType": "openSource"}
    assert job.response
    assert job.response.keys() == {"downloadUrl", "expiresOn", "sizeBytes", "sha256"}
    assert [line.phase for line in job.logs] == ["COPYING", "DONE"]
    archive = await fetched(stage, job)
    assert (archive.path.read_text(), archive.file_name) == ("an archive", "Flan-T5.tar")


async def test_the_deployment_that_was_deployed_last_or_the_named_one_goes_along(stage: Stage) -> None:
    model = await ready_model(stage)
    for name, batch in (("first", 1), ("second", 2)):
        await deploy_model(stage.ctx, model.model_id, a_wish(name, max_batch_size=batch), "test")
        await stage.settle()

    async def config(name: str | None) -> tuple[str, int]:
        job = await exported(stage, await export_model(stage.ctx, model.model_id, name, "test"))
        config = job.request["deployConfig"]
        return config["name"], config["scalingParameters"]["maxBatchSize"]

    assert await config(None) == ("second", 2)
    assert await config("first") == ("first", 1)
    await undeploy_model(stage.ctx, model.model_id, "second", "test")
    await stage.settle()
    assert await config(None) == ("first", 1)
    assert await config("second") == ("second", 2)
    with pytest.raises(NotFound, match="no deployment named 'third'") as caught:
        await export_model(stage.ctx, model.model_id, "third", "test")
    assert caught.value.field == "name"


async def test_an_export_holds_up_no_deploy_and_no_other_export(stage: Stage) -> None:
    model = await ready_model(stage)
    stage.preparer.held = asyncio.Event()
    first = await export_model(stage.ctx, model.model_id, None, "test")
    second = await export_model(stage.ctx, model.model_id, None, "test")
    await stage.prepare_jobs.work()
    await deploy_model(stage.ctx, model.model_id, a_wish(), "test")
    stage.preparer.held.set()
    for job in (first, second):
        await exported(stage, job)


async def test_a_model_is_not_deleted_under_its_export(stage: Stage) -> None:
    model = await ready_model(stage)
    job = await export_model(stage.ctx, model.model_id, None, "test")
    with pytest.raises(Conflict, match="EXPORT") as caught:
        await delete_model(stage.ctx, model.model_id)
    assert caught.value.reason is Reason.JOB_IN_PROGRESS
    job = await exported(stage, job)
    await delete_model(stage.ctx, model.model_id)
    assert (await fetched(stage, job)).file_name == "m.tar"


async def test_what_is_not_there_or_not_ready_is_not_exported(stage: Stage) -> None:
    with pytest.raises(NotFound):
        await export_model(stage.ctx, "cm-0", None, "test")
    model = await ready_model(stage)
    async with stage.ctx.store.transaction() as tx:
        importing = await tx.models.save(replace(model, state=ModelState.IMPORTING))
    with pytest.raises(Conflict, match="export it once it is Ready to Deploy") as caught:
        await export_model(stage.ctx, importing.model_id, None, "test")
    assert caught.value.reason is Reason.MODEL_NOT_READY


async def test_a_failed_export_tells_why_and_leaves_nothing(stage: Stage) -> None:
    stage.preparer.refusal = Failed("the disk is full", reason=Reason.DISK_FULL, log_tail=("last words",))
    job = await export_model(stage.ctx, (await ready_model(stage)).model_id, None, "test")
    await stage.settle()
    ended = await get_job(stage.ctx, job.job_id)
    assert (ended.status, ended.reason, ended.log_tail) == (JobStatus.FAILED, Reason.DISK_FULL, ("last words",))
    assert stage.ctx.downloads.stored() == ()


async def test_a_cancelled_export_ends_and_leaves_nothing(stage: Stage) -> None:
    stage.preparer.held = asyncio.Event()
    job = await export_model(stage.ctx, (await ready_model(stage)).model_id, None, "test")
    await stage.prepare_jobs.work()
    await stage.preparer.halfway.wait()
    await cancel_job(stage.ctx, job.job_id)
    await stage.settle()
    ended = await get_job(stage.ctx, job.job_id)
    assert (ended.status, ended.reason, ended.percentage) == (JobStatus.FAILED, Reason.CANCELLED, 52)
    assert stage.ctx.downloads.stored() == ()


async def test_a_job_that_another_server_has_taken_over_is_left_to_it(stage: Stage) -> None:
    stage.preparer.held = asyncio.Event()
    job = await export_model(stage.ctx, (await ready_model(stage)).model_id, None, "test")
    await stage.prepare_jobs.work()
    await stage.preparer.halfway.wait()
    async with stage.ctx.store.transaction() as tx:
        await tx.jobs.release(None)
        [taken] = await tx.jobs.claim("another", datetime.now(UTC), datetime.now(UTC) + timedelta(minutes=1))
    await stage.prepare_jobs.work()
    await asyncio.gather(*exports_under_way(), return_exceptions=True)
    assert exports_under_way() == []
    assert await get_job(stage.ctx, job.job_id) == taken


def exports_under_way() -> list[asyncio.Task[None]]:
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("export ")]


async def test_an_archive_goes_when_its_link_has_expired(stage: Stage) -> None:
    job = await exported(stage, await export_model(stage.ctx, (await ready_model(stage)).model_id, None, "test"))
    wait_s = await remove_expired_archives(stage.ctx)
    assert wait_s is not None
    assert 0 < wait_s <= KEPT_FOR.total_seconds()
    assert stage.ctx.downloads.stored() == (job.job_id,)
    afterwards = later(stage, KEPT_FOR)
    with pytest.raises(Forbidden) as caught:
        await fetched(afterwards, job)
    assert caught.value.reason is Reason.LINK_EXPIRED
    assert await remove_expired_archives(afterwards.ctx) is None
    assert stage.ctx.downloads.stored() == ()
    with pytest.raises(NotFound, match="gone"):
        await fetched(stage, job)
    kept = await get_job(stage.ctx, job.job_id)
    assert kept.response
    assert kept.response["expiresOn"].endswith(".000Z")


async def test_archives_of_no_job_or_a_failed_one_are_removed_and_those_in_the_making_stay(stage: Stage) -> None:
    job = await export_model(stage.ctx, (await ready_model(stage)).model_id, None, "test")
    stage.ctx.downloads.folder.mkdir()
    for job_id in (job.job_id, "ds-0"):
        stage.ctx.downloads.path(job_id).touch()
    await remove_expired_archives(stage.ctx)
    assert stage.ctx.downloads.stored() == (job.job_id,)


async def test_an_export_survives_the_death_of_the_server_after_any_commit(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole, left = World(tmp_path / "whole"), list[World]()

    def keep(committed: bool) -> None:
        if committed:
            left.append(whole.copy(tmp_path / f"after-{len(left) + 1}"))

    async with open_stage(whole, keep) as stage:
        await exported(stage, await export_model(stage.ctx, (await ready_model(stage)).model_id, None, "test"))
    assert len(left) > 4
    for commits, world in enumerate(left, 1):
        async with open_stage(world) as stage:
            async with stage.ctx.store.transaction() as tx:
                await tx.jobs.release(None)
                open_jobs = await tx.jobs.in_progress()
            for job in open_jobs:
                await fetched(stage, await exported(stage, job))
            await remove_expired_archives(stage.ctx)
            assert len(stage.ctx.downloads.stored()) == (1 if commits > 1 else 0), world.folder
