"""Jobs, and the leases that say who works on which."""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Select, or_, update

from dockyard.domain.job import Action, Job
from dockyard.domain.lifecycle import JobStatus
from dockyard.store.paging import Page
from dockyard.store.repository import RevisedRepository
from dockyard.store.rows import field_names, from_row, to_row
from dockyard.store.tables import JobRow


class Jobs(RevisedRepository[Job]):
    """A claim changes the revision, so whoever held the job before can no longer save it. A renewal does not."""

    noun = "dock status"
    kind = Job
    row = JobRow
    key = "job_id"

    async def page(
        self,
        limit: int,
        cursor: str | None = None,
        model_id: str | None = None,
        status: JobStatus | None = None,
    ) -> Page[Job]:
        conditions = []
        if model_id is not None:
            conditions.append(JobRow.model_id == model_id)
        if status is not None:
            conditions.append(JobRow.status == status)
        return await self._page(conditions, limit, cursor)

    async def in_progress(self) -> list[Job]:
        """Oldest first."""
        return await self._all(self._oldest_first().where(JobRow.status == JobStatus.IN_PROGRESS))

    async def of_version(self, version_id: str) -> Job | None:
        """The version's newest job."""
        newest = self._select().order_by(JobRow.created_at.desc(), JobRow.job_id.desc()).limit(1)
        found = await self._all(newest.where(JobRow.version_id == version_id))
        return found[0] if found else None

    async def open_for_deployment(self, deployment_id: str) -> list[Job]:
        """The deployment's jobs in progress, oldest first."""
        return await self._all(
            self._oldest_first().where(JobRow.deployment_id == deployment_id, JobRow.status == JobStatus.IN_PROGRESS)
        )

    async def claim(
        self, owner: str, now: datetime, until: datetime, actions: Collection[Action] = tuple(Action)
    ) -> list[Job]:
        """Lease every job in progress of these actions that nobody holds as of `now`; returns them, oldest first.

        One conditional UPDATE: of two claimants, the second one finds the lease taken.
        """
        free = or_(JobRow.lease_owner.is_(None), JobRow.lease_until.is_(None), JobRow.lease_until <= now)
        rows = await self._executor.write_returning(
            update(self._table)
            .where(JobRow.status == JobStatus.IN_PROGRESS, JobRow.action.in_(actions), free)
            .values(lease_owner=owner, lease_until=until, revision=JobRow.revision + 1)
            .returning(*(self._table.c[name] for name in field_names(Job)))
        )
        return sorted((from_row(Job, row) for row in rows), key=lambda job: (job.created_at, job.job_id))

    async def renew(self, owner: str, job_ids: Iterable[str], until: datetime) -> frozenset[str]:
        """Prolong the owner's leases; returns the ids that it still holds. The others are somebody else's now."""
        rows = await self._executor.write_returning(
            update(self._table)
            .where(
                JobRow.job_id.in_(tuple(job_ids)),
                JobRow.lease_owner == owner,
                JobRow.status == JobStatus.IN_PROGRESS,
            )
            .values(lease_until=until)
            .returning(JobRow.job_id)
        )
        return frozenset(row["job_id"] for row in rows)

    async def release(self, owner: str | None) -> int:
        """Give up the owner's leases, or everybody's for None; returns how many."""
        held = JobRow.lease_owner.is_not(None) if owner is None else JobRow.lease_owner == owner
        return await self._executor.write(
            update(self._table).where(held).values(lease_owner=None, lease_until=None, revision=JobRow.revision + 1)
        )

    def _values(self, entity: Job) -> dict[str, Any]:
        # A save may give the lease up, never prolong it: `renew` may have moved its end since the job was read.
        values = to_row(entity)
        if entity.lease_owner is not None:
            del values["lease_owner"], values["lease_until"]
        return values

    def _oldest_first(self) -> Select[Any]:
        return self._select().order_by(JobRow.created_at, JobRow.job_id)
