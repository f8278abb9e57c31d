"""Import jobs: each runs the prepare process for one model and writes down what came of it."""

import asyncio
import contextlib
from dataclasses import replace
from datetime import timedelta

import msgspec
import structlog

from dockyard.clock import Clock
from dockyard.domain.card import ModelCard
from dockyard.domain.job import Action, Job, Phase, advance, fail, succeed
from dockyard.domain.lifecycle import ModelState
from dockyard.domain.model import Artifact, Model
from dockyard.errors import DockyardError, Failed, NotFound, Reason, Stale
from dockyard.loops.base import as_failure
from dockyard.loops.preparing import JobReporter
from dockyard.protocols.preparation import ImportTask, Outcome, Progress
from dockyard.services.context import SYSTEM, Context

log = structlog.get_logger()

LEASE_S = 10.0


class Imports:
    """Claims import jobs, runs each in a task of its own, renews their leases, and ends those that are cancelled."""

    def __init__(self, ctx: Context, owner: str, artifacts_dir: str, scratch_dir: str) -> None:
        self._ctx = ctx
        self._owner = owner
        self._artifacts_dir = artifacts_dir
        self._scratch_dir = scratch_dir
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def work(self) -> float | None:
        """One round of the loop."""
        clock: Clock = self._ctx.clock
        until = clock.now() + timedelta(seconds=LEASE_S)
        async with self._ctx.store.reading() as tx:
            open_jobs = [job for job in await tx.jobs.in_progress() if job.action is Action.IMPORT]
        for job in open_jobs:
            if job.cancel_requested and (task := self._tasks.get(job.job_id)):
                task.cancel()
        if not open_jobs:
            return None
        async with self._ctx.store.transaction() as tx:
            await tx.jobs.renew(self._owner, list(self._tasks), until)
            claimed = await tx.jobs.claim(self._owner, clock.now(), until, (Action.IMPORT,))
        for job in claimed:
            self._begin(job)
        return LEASE_S / 3

    async def close(self) -> None:
        """Leave the jobs to the next server: they are taken up again from their rows."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel("closing")
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _begin(self, job: Job) -> None:
        task = asyncio.create_task(self._import(job), name=f"import {job.job_id}")
        self._tasks[job.job_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(job.job_id, None))

    async def _import(self, job: Job) -> None:
        async with self._ctx.store.reading() as tx:
            model = await tx.models.get(job.model_id)
        task = ImportTask(source=model.source["path"], artifacts_dir=self._artifacts_dir, scratch_dir=self._scratch_dir)
        reporter = _ImportReporter(self._ctx, job, model)
        try:
            if job.cancel_requested:
                raise Failed("the import was cancelled", reason=Reason.CANCELLED)
            outcome = await self._ctx.preparer.run(task, reporter.report)
            await self._finish(job, outcome)
        except asyncio.CancelledError as error:
            if error.args != ("closing",):
                await self._fail(job, Failed("the import was cancelled", reason=Reason.CANCELLED))
                return
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, the job must end with it
            await self._fail(job, as_failure(error))

    async def _finish(self, job: Job, outcome: Outcome) -> None:
        now = self._ctx.clock.now()
        card = msgspec.convert(outcome.card, ModelCard)
        async with self._ctx.store.transaction() as tx:
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
            )
            job = await tx.jobs.get(job.job_id)
            if job.phase is not Phase.VALIDATING:  # too fast to be seen, or the files were there already
                job = advance(job, Phase.VALIDATING, "digests and card", now, 1.0)
            response = {"modelId": model.model_id, "state": model.state, "sizeBytes": outcome.size_bytes}
            await tx.jobs.save(succeed(job, f"{model.name} is {ModelState.READY}: {message}", now, response))
        self._ctx.wake()

    async def _fail(self, job: Job, error: DockyardError) -> None:
        now = self._ctx.clock.now()
        log.warning("an import failed", job=job.job_id, reason=error.reason, message=error.message)
        async with self._ctx.store.transaction() as tx:
            model = await tx.models.get(job.model_id)
            await tx.transition(
                replace(model, reason=error.reason, message=error.message),
                ModelState.FAILED,
                reason=error.reason,
                message=error.message,
                actor=SYSTEM,
                now=now,
            )
            job = await tx.jobs.get(job.job_id)
            await tx.jobs.save(fail(job, error.reason, error.message, now, error.log_tail))


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
