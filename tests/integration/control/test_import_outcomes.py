"""What an import's outcome becomes: a model that is ready, or the reason why what it needs went away meanwhile."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from tests.integration.control.stage import CARD, Stage, ready_model

from dockyard.domain.adapter import AdapterCard
from dockyard.domain.ids import new_id
from dockyard.domain.lifecycle import JobStatus, ModelState
from dockyard.domain.model import Model
from dockyard.domain.spec import ModelType
from dockyard.domain.upload import FileExtension
from dockyard.errors import Failed, Reason
from dockyard.loops.imports import Imports
from dockyard.protocols.preparation import Outcome
from dockyard.services.jobs import get_job
from dockyard.services.models import begin_import, delete_model, get_model
from dockyard.services.uploads import UploadWish, complete_upload, keep_chunk, receiving, start_upload

ADAPTER = replace(CARD, adapter=AdapterCard(base_key="weights", rank=4, parameters=10, modules=("q_proj",)))


async def begun(stage: Stage, base_model_id: str | None = None) -> tuple[Imports, str, str]:
    """The errand, and the ids of a model that is being imported and of its job."""
    now = stage.ctx.clock.now()
    model = Model(
        model_id=new_id("cm"),
        name="tuned",
        model_type=ModelType.FINE_TUNE,
        source={"path": "/somewhere"},
        created_at=now,
        modified_at=now,
        base_model_id=base_model_id,
    )
    async with stage.ctx.store.transaction() as tx:
        job = await begin_import(tx, model, (), "test")
    return Imports(stage.ctx, "/artifacts", "/scratch", "/downloads"), model.model_id, job.job_id


def outcome(**changes: Any) -> Outcome:
    return Outcome(key="adapter", size_bytes=10, card=msgspec.to_builtins(replace(ADAPTER, **changes)))


async def test_an_adapter_finds_its_base_by_the_files_that_it_was_checked_against(stage: Stage) -> None:
    base = await ready_model(stage, "base")
    imports, model_id, job_id = await begun(stage)
    await imports.finish(job_id, outcome(deploy_config={"name": "dates"}))
    model = await get_model(stage.ctx, model_id)
    assert (model.state, model.base_model_id) == (ModelState.READY, base.model_id)
    job = await get_job(stage.ctx, job_id)
    assert (job.status, (job.response or {})["fromExport"]) == (JobStatus.SUCCESS, True)


async def test_an_adapter_is_not_ready_without_its_base(stage: Stage) -> None:
    base = await ready_model(stage, "base")
    imports, model_id, job_id = await begun(stage)
    await delete_model(stage.ctx, base.model_id)
    with pytest.raises(Failed, match="base model was deleted") as caught:
        await imports.finish(job_id, outcome())
    assert caught.value.reason is Reason.BASE_MODEL_MISSING
    await imports.fail(job_id, caught.value)
    assert (await get_model(stage.ctx, model_id)).state is ModelState.FAILED


async def test_files_that_a_delete_took_away_meanwhile_are_not_called_ready(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ready_model(stage, "base")
    imports, model_id, job_id = await begun(stage)
    monkeypatch.setattr(stage.preparer, "cached", lambda *_: None)
    with pytest.raises(Failed, match="import it again") as caught:
        await imports.finish(job_id, outcome())
    assert caught.value.reason is Reason.CHANGED_MEANWHILE
    assert (await get_model(stage.ctx, model_id)).state is ModelState.IMPORTING


async def test_a_named_base_that_is_an_adapter_or_not_ready_is_told(stage: Stage) -> None:
    base = await ready_model(stage, "base")
    async with stage.ctx.store.transaction() as tx:
        base = await tx.models.save(replace(base, card=ADAPTER))
    for words, state in (("is an adapter itself", ModelState.READY), ("is Import Failed", ModelState.FAILED)):
        async with stage.ctx.store.transaction() as tx:
            card = ADAPTER if state is ModelState.READY else None
            base = await tx.models.save(replace(base, state=state, card=card))
        imports, _, job_id = await begun(stage, base.model_id)
        task, _ = await imports.prepare(await get_job(stage.ctx, job_id))
        assert task.base_problem is not None
        assert words in task.base_problem


@pytest.mark.parametrize(("reason", "kept"), [(Reason.DISK_FULL, True), (Reason.WEIGHTS_MISSING, False)])
async def test_a_full_disk_leaves_the_chunks_to_be_completed_again(stage: Stage, reason: Reason, kept: bool) -> None:
    ctx = stage.ctx
    wish = UploadWish(
        file_name="m.tar",
        extension=FileExtension.TAR,
        file_size=1,
        total_chunks=1,
        name="m",
        model_type=ModelType.OPEN_SOURCE,
    )
    session = await start_upload(ctx, wish)
    async with receiving(ctx, session.session_id) as (living, incoming):
        incoming.write(memoryview(b"x"))
        await keep_chunk(ctx, living, 0, incoming, None)
    job = await complete_upload(ctx, session.session_id, None, (), "test")
    imports = Imports(ctx, "/artifacts", "/scratch", "/downloads")
    await imports.fail(job.job_id, Failed("it did not work", reason=reason))
    ended = await get_job(ctx, job.job_id)
    assert (ended.status, ended.reason) == (JobStatus.FAILED, reason)
    assert ("the chunks are kept" in ended.message) is kept
    assert (ctx.uploads.sizes(session.session_id) == {0: 1}) is kept
    if kept:
        again = await complete_upload(ctx, session.session_id, None, (), "test")
        assert again.job_id != job.job_id
        assert (await get_model(ctx, again.model_id)).state is ModelState.IMPORTING
