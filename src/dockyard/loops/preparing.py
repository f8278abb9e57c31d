"""Artifacts in the making: one task per version that waits for its artifact; progress goes to the version's job."""

import asyncio
import contextlib
from dataclasses import replace
from weakref import WeakValueDictionary

import structlog

from dockyard.domain.deployment import Version
from dockyard.domain.job import Phase, advance
from dockyard.domain.model import Artifact, Model
from dockyard.domain.replica import ReplicaFailure
from dockyard.errors import NotFound, Stale
from dockyard.loops.base import as_failure
from dockyard.protocols.preparation import ConvertTask, Merge, Outcome, Progress
from dockyard.services.context import Context

log = structlog.get_logger()

WRITE_EVERY_S = 0.25  # progress is written to the row at most this often


class Preparations:
    """Runs at most one `prepare` process per artifact; versions that want the same one wait for it together."""

    def __init__(self, ctx: Context, artifacts_dir: str, scratch_dir: str) -> None:
        self._ctx = ctx
        self._artifacts_dir = artifacts_dir
        self._scratch_dir = scratch_dir
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._artifact_locks: WeakValueDictionary[tuple[str, ...], asyncio.Lock] = WeakValueDictionary()
        self.failures: dict[str, ReplicaFailure] = {}

    def ensure(self, version: Version, model: Model) -> None:
        """Begin to make the version's artifact unless that is under way or has failed."""
        if version.version_id in self._tasks or version.version_id in self.failures:
            return
        task = asyncio.create_task(self._make(version, model), name=f"prepare {version.version_id}")
        self._tasks[version.version_id] = task
        task.add_done_callback(lambda done: self._done(version.version_id, done))

    def cancel(self, version_id: str) -> None:
        """Stop making it: the version does not want it any more."""
        self.failures.pop(version_id, None)
        if task := self._tasks.get(version_id):
            task.cancel()

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _done(self, version_id: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(version_id, None)
        if not task.cancelled() and (error := task.exception()):
            log.error("an artifact could not be noted; it is tried again", version=version_id, exc_info=error)
        self._ctx.wake()

    async def _make(self, version: Version, model: Model) -> None:
        task = self._task(version, model)
        # Whatever is made of an adapter begins with the same merge: one after the other finds it done.
        wanted = (task.source_key,) if task.merge else (task.source_key, task.engine, task.quantization)
        lock = self._artifact_locks.setdefault(wanted, asyncio.Lock())
        reporter = JobReporter(self._ctx, version.job_id)
        try:
            async with lock:
                outcome = await self._ctx.preparer.run(task, reporter.report)
            await self._record(task, outcome)
        except Exception as error:  # noqa: BLE001 - whatever it was, the deploy must end with it
            failure = as_failure(error)
            log.warning("an artifact could not be made", version=version.version_id, reason=failure.reason)
            self.failures[version.version_id] = ReplicaFailure(
                reason=failure.reason, message=failure.message, at=self._ctx.clock.now(), log_tail=failure.log_tail
            )

    def _task(self, version: Version, model: Model) -> ConvertTask:
        source_key = model.weights_for(version.runtime.engine) or ""
        merge = None
        if model.adapter is not None:
            merge = Merge(
                adapter_key=model.artifact_key or "",
                base_key=model.adapter.base_key,
                apart=source_key == model.apart_key,
            )
        return ConvertTask(
            source_key=source_key,
            engine=str(version.runtime.engine),
            quantization=str(version.spec.quantization),
            artifacts_dir=self._artifacts_dir,
            scratch_dir=self._scratch_dir,
            merge=merge,
        )

    async def _record(self, task: ConvertTask, outcome: Outcome) -> None:
        """The rows of what was made: the merged weights, if there are such, and what was converted."""
        now = self._ctx.clock.now()
        made: list[Artifact] = []
        if task.merge is not None:
            made.append(
                Artifact(
                    key=task.source_key,
                    source_key=task.merge.adapter_key,
                    engine=None,
                    quantization=None,
                    size_bytes=outcome.merged_bytes or 0,
                    created_at=now,
                    last_used_at=now,
                )
            )
        if outcome.key != task.source_key:
            made.append(
                Artifact(
                    key=outcome.key,
                    source_key=task.source_key,
                    engine=task.engine,
                    quantization=task.quantization,
                    size_bytes=outcome.size_bytes,
                    created_at=now,
                    last_used_at=now,
                )
            )
        if made:
            async with self._ctx.store.transaction() as tx:
                for artifact in made:
                    await tx.artifacts.put(artifact)


class JobReporter:
    """Writes a task's progress into its job, not more often than `WRITE_EVERY_S`; a phase's begin and end at once."""

    def __init__(self, ctx: Context, job_id: str) -> None:
        self._ctx = ctx
        self._job_id = job_id
        self._written_at = float("-inf")
        self._phase: str | None = None

    async def report(self, progress: Progress) -> None:
        now = self._ctx.clock.monotonic()
        soon = now - self._written_at < WRITE_EVERY_S
        if progress.phase == self._phase and soon and progress.share < 1:
            return
        self._written_at, self._phase = now, progress.phase
        # A cancel or the reconciler may write between reading and saving; progress can wait for the next line.
        with contextlib.suppress(Stale, NotFound):
            async with self._ctx.store.transaction() as tx:
                job = await tx.jobs.get(self._job_id)
                if job.ended:
                    return
                moved = advance(job, Phase(progress.phase), progress.message, self._ctx.clock.now(), progress.share)
                await tx.jobs.save(replace(moved, revision=job.revision))
