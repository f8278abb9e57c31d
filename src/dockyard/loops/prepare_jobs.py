"""Jobs that are one run of the prepare process each: claimed by a lease, run in a task of their own, brought to an end.

What differs from action to action is an `Errand`; `imports` and `exports` hold one each.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Protocol

import structlog

from dockyard.domain.job import Action, Job
from dockyard.errors import DockyardError, Failed, Reason
from dockyard.loops.base import as_failure
from dockyard.protocols.preparation import Outcome, Progress, Task
from dockyard.services.context import Context

log = structlog.get_logger()

LEASE_S = 10.0
_CLOSING = "closing"  # why a task is cancelled whose job somebody else goes on with

OnProgress = Callable[[Progress], Awaitable[None]]


class Errand(Protocol):
    """One action's part. `finish` and `fail` end the job in the transaction that writes what came of it."""

    @property
    def action(self) -> Action: ...

    async def prepare(self, job: Job) -> tuple[Task, OnProgress]:
        """What the process is asked for, and who is told how far it is. Raises `DockyardError`: the job fails."""
        ...

    async def finish(self, job_id: str, outcome: Outcome) -> None: ...

    async def fail(self, job_id: str, error: DockyardError) -> None: ...


class PrepareJobs:
    """Claims the jobs of its errands, renews their leases, and ends those that are cancelled."""

    def __init__(self, ctx: Context, owner: str, errands: Sequence[Errand]) -> None:
        self._ctx = ctx
        self._owner = owner
        self._errands = {errand.action: errand for errand in errands}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._cancelled: set[str] = set()

    async def work(self) -> float | None:
        """One round of the loop."""
        now = self._ctx.clock.now()
        async with self._ctx.store.reading() as tx:
            open_jobs = [job for job in await tx.jobs.in_progress() if job.action in self._errands]
        for job in open_jobs:
            if job.cancel_requested:
                self._cancel(job.job_id)
        if not open_jobs:
            return None
        until = now + timedelta(seconds=LEASE_S)
        async with self._ctx.store.transaction() as tx:
            held = await tx.jobs.renew(self._owner, list(self._tasks), until)
            claimed = await tx.jobs.claim(self._owner, now, until, tuple(self._errands))
        for job in open_jobs:
            if (task := self._tasks.get(job.job_id)) and job.job_id not in held:
                task.cancel(_CLOSING)  # the lease ran out while this server was held up, and another one has it
        for job in claimed:
            self._begin(job)
        return LEASE_S / 3

    async def close(self) -> None:
        """Leave the jobs to the next server: they are taken up again from their rows."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel(_CLOSING)
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _begin(self, job: Job) -> None:
        if job.job_id in self._tasks:  # it is just being left; the next round after the lease takes it up
            return
        task = asyncio.create_task(self._run(job), name=f"{job.action.lower()} {job.job_id}")
        self._tasks[job.job_id] = task
        task.add_done_callback(lambda done: self._done(job.job_id, done))

    def _cancel(self, job_id: str) -> None:
        """Once: a second time would hit the writing down of the first."""
        task = self._tasks.get(job_id)
        if task is not None and job_id not in self._cancelled:
            self._cancelled.add(job_id)
            task.cancel()

    def _done(self, job_id: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(job_id, None)
        self._cancelled.discard(job_id)
        if not task.cancelled() and (error := task.exception()):
            log.error("a job's end could not be written; it is tried again", job=job_id, exc_info=error)

    async def _run(self, job: Job) -> None:
        errand = self._errands[job.action]
        try:
            if job.cancel_requested:
                raise _cancelled(job)
            task, on_progress = await errand.prepare(job)
            await errand.finish(job.job_id, await self._ctx.preparer.run(task, on_progress))
        except asyncio.CancelledError as cause:
            if cause.args == (_CLOSING,):
                raise
            await self._fail(errand, job, _cancelled(job))
        except Exception as error:  # noqa: BLE001 - whatever it was, the job must end with it
            await self._fail(errand, job, as_failure(error))

    async def _fail(self, errand: Errand, job: Job, error: DockyardError) -> None:
        log.warning("a job failed", job=job.job_id, action=job.action, reason=error.reason, message=error.message)
        await errand.fail(job.job_id, error)


def _cancelled(job: Job) -> Failed:
    return Failed(f"the {job.action.lower()} was cancelled", reason=Reason.CANCELLED)
