"""Import jobs: what the prepare process is asked for, and what is written down of its outcome."""

import contextlib
from dataclasses import replace

import msgspec

from dockyard.domain.card import ModelCard
from dockyard.domain.job import Action, Job, Phase, advance, fail, succeed
from dockyard.domain.lifecycle import ModelState
from dockyard.domain.model import Artifact, Model
from dockyard.errors import DockyardError, NotFound, Stale
from dockyard.loops.prepare_jobs import OnProgress
from dockyard.loops.preparing import JobReporter
from dockyard.protocols.preparation import ImportTask, Outcome, PathSource, Progress, Source
from dockyard.services.context import SYSTEM, Context


class Imports:
    """The errand of an import."""

    action = Action.IMPORT

    def __init__(self, ctx: Context, artifacts_dir: str, scratch_dir: str) -> None:
        self._ctx = ctx
        self._artifacts_dir = artifacts_dir
        self._scratch_dir = scratch_dir

    async def prepare(self, job: Job) -> tuple[ImportTask, OnProgress]:
        async with self._ctx.store.reading() as tx:
            model = await tx.models.get(job.model_id)
            base = await tx.models.get(model.base_model_id) if model.base_model_id else None
        task = ImportTask(
            source=_source_of(model),
            artifacts_dir=self._artifacts_dir,
            scratch_dir=self._scratch_dir,
            base_key=base.artifact_key if base else None,
        )
        return task, _ImportReporter(self._ctx, job, model).report

    async def finish(self, job_id: str, outcome: Outcome) -> None:
        now = self._ctx.clock.now()
        card = msgspec.convert(outcome.card, ModelCard)
        async with self._ctx.store.transaction() as tx:
            job = await tx.jobs.get(job_id)
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
            model = await tx.models.get(job.model_id)
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
                source=model.source | outcome.found,
            )
            job = advance(job, Phase.VALIDATING, "the stored files match their digests", now, 1.0)
            response = {"modelId": model.model_id, "state": model.state, "sizeBytes": outcome.size_bytes}
            await tx.jobs.save(succeed(job, f"{model.name} is {ModelState.READY}: {message}", now, response))
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
            await tx.jobs.save(fail(job, error.reason, error.message, now, error.log_tail))


def _source_of(model: Model) -> Source:
    """What the model's row says of where it comes from, as the prepare process reads it."""
    return PathSource(path=model.source["path"])


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
