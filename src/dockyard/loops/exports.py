"""Export jobs: pack a model's files, sign the link, and remove the archive once the link has expired."""

from dockyard.domain.export import KEPT_FOR
from dockyard.domain.job import Action, Job, Phase, advance, fail, succeed
from dockyard.domain.lifecycle import JobStatus
from dockyard.errors import DockyardError
from dockyard.loops.prepare_jobs import OnProgress
from dockyard.loops.preparing import JobReporter
from dockyard.protocols.preparation import ExportTask, Outcome
from dockyard.services.context import Context
from dockyard.services.exports import expires_at


class Exports:
    """The errand of an export."""

    action = Action.EXPORT

    def __init__(self, ctx: Context, artifacts_dir: str, scratch_dir: str) -> None:
        self._ctx = ctx
        self._artifacts_dir = artifacts_dir
        self._scratch_dir = scratch_dir

    async def prepare(self, job: Job) -> tuple[ExportTask, OnProgress]:
        task = ExportTask(
            source_key=job.request["artifactKey"],
            folder=job.request["name"],
            deploy_config=job.request["deployConfig"],
            archive=str(self._ctx.downloads.path(job.job_id)),
            artifacts_dir=self._artifacts_dir,
            scratch_dir=self._scratch_dir,
        )
        return task, JobReporter(self._ctx, job.job_id).report

    async def finish(self, job_id: str, outcome: Outcome) -> None:
        now = self._ctx.clock.now()
        until = (now + KEPT_FOR).replace(microsecond=0)
        response = {
            "downloadUrl": self._ctx.downloads.link(job_id, until),
            "expiresOn": until.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z",
            "sizeBytes": outcome.size_bytes,
            "sha256": outcome.sha256,
        }
        async with self._ctx.store.transaction() as tx:
            job = await tx.jobs.get(job_id)
            if job.phase is not Phase.COPYING:  # too fast to be seen
                job = advance(job, Phase.COPYING, "packed", now, 1.0)
            message = f"the archive can be fetched until {response['expiresOn']}"
            await tx.jobs.save(succeed(job, message, now, response))
        self._ctx.wake()

    async def fail(self, job_id: str, error: DockyardError) -> None:
        now = self._ctx.clock.now()
        async with self._ctx.store.transaction() as tx:
            job = await tx.jobs.get(job_id)
            if job.ended:  # a cancel that came too late
                return
            await tx.jobs.save(fail(job, error.reason, error.message, now, error.log_tail))
        self._ctx.downloads.remove(job_id)  # a cancel may have come just after it was packed


async def remove_expired_archives(ctx: Context) -> float | None:
    """Remove the archives that no link opens any more; returns the seconds until the next one expires."""
    now = ctx.clock.now()
    waits: list[float] = []
    for job_id in ctx.downloads.stored():
        async with ctx.store.reading() as tx:
            job = await tx.jobs.find(job_id)
        if job is not None and not job.ended:
            continue
        until = expires_at(job) if job is not None and job.status is JobStatus.SUCCESS else None
        if until is None or until <= now:
            ctx.downloads.remove(job_id)
        else:
            waits.append((until - now).total_seconds())
    return min(waits, default=None)
