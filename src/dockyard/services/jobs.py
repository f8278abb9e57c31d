"""Dock status: read jobs, cancel one."""

from collections.abc import Collection
from dataclasses import replace

from dockyard.domain.access import Scope
from dockyard.domain.job import Action, Job
from dockyard.domain.lifecycle import JobStatus
from dockyard.errors import Conflict, Forbidden, Reason
from dockyard.services.context import Context
from dockyard.store.paging import Page


async def get_job(ctx: Context, job_id: str) -> Job:
    async with ctx.store.reading() as tx:
        return await tx.jobs.get(job_id)


async def list_jobs(
    ctx: Context, limit: int, cursor: str | None, model_id: str | None = None, status: JobStatus | None = None
) -> Page[Job]:
    async with ctx.store.reading() as tx:
        return await tx.jobs.page(limit, cursor, model_id=model_id, status=status)


# Who may begin the work may end it.
SCOPES = {
    Action.IMPORT: Scope.IMPORT,
    Action.EXPORT: Scope.EXPORT,
    Action.DEPLOY: Scope.DEPLOY,
    Action.UNDEPLOY: Scope.UNDEPLOY,
}


async def cancel_job(ctx: Context, job_id: str, scopes: Collection[Scope] = tuple(Scope)) -> Job:
    """Ask for a job's end: it goes to FAILED with CANCELLED, and what it began is taken back. Asking twice is fine.

    Raises `Forbidden` unless `scopes` hold the one that the job's action needs; `Conflict` (JOB_ENDED) for an ended
    job, and for an undeploy, which cannot be taken back.
    """
    async with ctx.store.transaction() as tx:
        job = await tx.jobs.get(job_id)
        if SCOPES[job.action] not in scopes:
            raise Forbidden(f"the key's app lacks the scope {SCOPES[job.action].value!r}")
        if job.ended:
            raise Conflict(f"{job.action} {job_id} has ended with {job.status}", reason=Reason.JOB_ENDED)
        if job.action is Action.UNDEPLOY:
            raise Conflict("an undeploy cannot be cancelled; deploy the model again once it is done")
        if not job.cancel_requested:
            job = await tx.jobs.save(replace(job, cancel_requested=True, modified_at=ctx.clock.now()))
    ctx.wake()
    return job
