"""Import jobs: what the prepare process is asked for, and what is written down of its outcome."""

import asyncio
import contextlib
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import msgspec

from dockyard.domain.card import ModelCard
from dockyard.domain.ids import new_id
from dockyard.domain.job import Action, Job, Phase, advance, fail, succeed
from dockyard.domain.lifecycle import ModelState
from dockyard.domain.model import Artifact, Model
from dockyard.domain.spec import EngineName, Quantization
from dockyard.errors import DockyardError, Failed, NotFound, Reason, Stale
from dockyard.loops.prepare_jobs import OnProgress
from dockyard.loops.preparing import JobReporter
from dockyard.protocols.preparation import HubSource, ImportTask, Outcome, PathSource, Progress, Source, UploadSource
from dockyard.services.context import SYSTEM, Context
from dockyard.services.upload_files import UploadFiles
from dockyard.store.transaction import Transaction


class Imports:
    """The errand of an import."""

    action = Action.IMPORT

    def __init__(self, ctx: Context, artifacts_dir: str, scratch_dir: str, downloads_dir: str) -> None:
        self._ctx = ctx
        self._artifacts_dir = artifacts_dir
        self._scratch_dir = scratch_dir
        self._downloads_dir = downloads_dir

    async def prepare(self, job: Job) -> tuple[ImportTask, OnProgress]:
        async with self._ctx.store.reading() as tx:
            model = await tx.models.get(job.model_id)
            base = await tx.models.find(model.base_model_id) if model.base_model_id else None
        task = ImportTask(
            source=_source_of(model, self._downloads_dir, self._ctx.uploads),
            artifacts_dir=self._artifacts_dir,
            scratch_dir=self._scratch_dir,
            base_key=base.artifact_key if base else None,
            base_problem=_base_problem(model, base),
        )
        return task, _ImportReporter(self._ctx, job, model).report

    async def finish(self, job_id: str, outcome: Outcome) -> None:
        now = self._ctx.clock.now()
        card = msgspec.convert(outcome.card, ModelCard)
        async with self._ctx.store.transaction() as tx:
            job = await tx.jobs.get(job_id)
            model = await tx.models.get(job.model_id)
            base_model_id = await _base_of(tx, model, card)
            if self._ctx.preparer.cached(outcome.key, EngineName.TRANSFORMERS, Quantization.NONE) is None:
                raise Failed(
                    f"the files of {model.name} were stored already, and deleted with another model just now; "
                    "import it again",
                    reason=Reason.CHANGED_MEANWHILE,
                )
            await tx.artifacts.put(
                Artifact(
                    key=outcome.key,
                    source_key=None,
                    engine=None,
                    quantization=None,
                    size_bytes=outcome.size_bytes,
                    created_at=now,
                    last_used_at=now,
                )
            )
            if model.state is ModelState.IMPORTING:
                model = await tx.transition(
                    model, ModelState.VALIDATING, reason="COPIED", message="", actor=SYSTEM, now=now
                )
            message = f"{card.architecture}, {card.parameters:,} parameters"
            model = await tx.transition(
                model,
                ModelState.READY,
                reason="VALIDATED",
                message=message,
                actor=SYSTEM,
                now=now,
                artifact_key=outcome.key,
                size_bytes=outcome.size_bytes,
                card=card,
                base_model_id=base_model_id,
                source=model.source | outcome.found,
            )
            job = advance(job, Phase.VALIDATING, "the stored files match their digests", now, 1.0)
            response = {"modelId": model.model_id, "state": model.state, "sizeBytes": outcome.size_bytes}
            if card.deploy_config:
                response["fromExport"] = True
            await tx.jobs.save(succeed(job, f"{model.name} is {ModelState.READY}: {message}", now, response))
        await self._forget_source(model)
        self._ctx.wake()

    async def fail(self, job_id: str, error: DockyardError) -> None:
        now = self._ctx.clock.now()
        async with self._ctx.store.transaction() as tx:
            job = await tx.jobs.get(job_id)
            if job.ended:  # a cancel that came too late
                return
            model = await tx.models.get(job.model_id)
            await tx.transition(
                replace(model, reason=error.reason, message=error.message),
                ModelState.FAILED,
                reason=error.reason,
                message=error.message,
                actor=SYSTEM,
                now=now,
            )
            message, kept = error.message, False
            if error.reason is Reason.DISK_FULL and (kept := await self._reopen_upload(tx, model)):
                message += "; the chunks are kept, and the upload can be completed again (the same import command does)"
            await tx.jobs.save(fail(job, error.reason, message, now, error.log_tail))
        if not kept:
            await self._forget_source(model)

    async def _reopen_upload(self, tx: Transaction, model: Model) -> bool:
        """Let an upload be completed once more, into another model; whether there is one."""
        session = await tx.uploads.find(model.source["sessionId"]) if "sessionId" in model.source else None
        if session is None:
            return False
        expires_at = self._ctx.clock.now() + timedelta(seconds=self._ctx.policy.upload_ttl_s)
        await tx.uploads.save(replace(session, job_id=None, model_id=new_id("cm"), expires_at=expires_at))
        return True

    async def remove_orphans(self) -> None:
        """Remove the downloads that no import goes on with. Called once, before the first job."""
        async with self._ctx.store.reading() as tx:
            going_on = {job.model_id for job in await tx.jobs.in_progress() if job.action is self.action}
        for name in await asyncio.to_thread(_names_in, Path(self._downloads_dir)):
            if name not in going_on:
                await self._forget_download(name)

    async def _forget_source(self, model: Model) -> None:
        """What was fetched or sent to be imported is of no more use."""
        await self._forget_download(model.model_id)
        if "sessionId" in model.source:
            await asyncio.to_thread(self._ctx.uploads.remove, model.source["sessionId"])

    async def _forget_download(self, model_id: str) -> None:
        await asyncio.to_thread(shutil.rmtree, Path(self._downloads_dir) / model_id, ignore_errors=True)


def _names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _source_of(model: Model, downloads_dir: str, uploads: UploadFiles) -> Source:
    """What the model's row says of where it comes from, as the prepare process reads it."""
    if "huggingFace" in model.source:
        return HubSource(
            repository=model.source["huggingFace"],
            revision=model.source.get("revision"),
            file=model.source.get("file"),
            folder=str(Path(downloads_dir) / model.model_id),
        )
    if "sessionId" in model.source:
        return UploadSource(
            folder=str(uploads.folder(model.source["sessionId"])),
            chunks=int(model.source["chunks"]),
            extension=model.source["fileExtension"],
            sha256=model.source.get("sha256"),
            is_adapter={"true": True, "false": False}.get(model.source.get("isAdapter", "")),
        )
    return PathSource(path=model.source["path"])


def _base_problem(model: Model, base: Model | None) -> str | None:
    """Why an adapter cannot have the named model as its base. A model with whole weights does not mind."""
    if model.base_model_id is None:
        return None
    if base is None:
        return f"the base model {model.base_model_id} is gone; import it again, then this one"
    if base.adapter is not None:
        return f"{base.name} is an adapter itself; name the model that it is an adapter of ({base.base_model_id})"
    if base.state is not ModelState.READY:
        return f"{base.name}, named as base, is {base.state}; import this one again once it is {ModelState.READY}"
    return None


async def _base_of(tx: Transaction, model: Model, card: ModelCard) -> str | None:
    """The model whose weights the adapter was checked against; for whole weights what the import named.

    Raises `Failed` (BASE_MODEL_MISSING) if it was deleted meanwhile: from here on it cannot be.
    """
    if card.adapter is None:
        return model.base_model_id
    able = await tx.models.by_artifact(card.adapter.base_key)
    chosen = [base for base in able if base.model_id == model.base_model_id] or able
    if not chosen:
        raise Failed(
            "the base model was deleted while its adapter was imported; import both again",
            reason=Reason.BASE_MODEL_MISSING,
        )
    return chosen[0].model_id


class _ImportReporter(JobReporter):
    """Also moves the model from Importing to Validating when its files are there."""

    def __init__(self, ctx: Context, job: Job, model: Model) -> None:
        super().__init__(ctx, job.job_id)
        self._model_id = model.model_id

    async def report(self, progress: Progress) -> None:
        if progress.phase == Phase.VALIDATING and self._phase != Phase.VALIDATING:
            with contextlib.suppress(Stale, NotFound):
                async with self._ctx.store.transaction() as tx:
                    model = await tx.models.get(self._model_id)
                    if model.state is ModelState.IMPORTING:
                        await tx.transition(
                            model,
                            ModelState.VALIDATING,
                            reason="COPIED",
                            message=progress.message,
                            actor=SYSTEM,
                            now=self._ctx.clock.now(),
                        )
        await super().report(progress)
