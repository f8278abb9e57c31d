"""The dock status: a job as a client watches it."""

from collections.abc import Collection
from typing import Any, Literal

from pydantic import Field

from dockyard.api.wire.base import Listing, Moment, WireOut
from dockyard.domain.access import Scope
from dockyard.domain.job import Action, Job, Phase, PhaseLog
from dockyard.domain.lifecycle import JobStatus
from dockyard.errors import Reason


class StatusLogOut(WireOut):
    phase: Phase
    status: JobStatus
    started_on: Moment
    finished_on: Moment | None
    message: str

    @classmethod
    def of(cls, log: PhaseLog) -> "StatusLogOut":
        return cls(
            phase=log.phase,
            status=log.status,
            started_on=log.started_at,
            finished_on=log.finished_at,
            message=log.message,
        )


class DockStatusOut(WireOut):
    """`percentageComplete` never falls and is 100 only at SUCCESS; `response` is there then, `reason` at FAILED."""

    id: str = Field(serialization_alias="_id")
    dock_status_id: str
    model_id: str
    job_type: Literal["MODELS"] = "MODELS"
    action: Action
    status: JobStatus
    percentage_complete: int = Field(ge=0, le=100)
    phase: Phase
    message: str
    reason: Reason | None
    log_tail: tuple[str, ...] = Field(description="The last lines of the process that failed.")
    status_logs: tuple[StatusLogOut, ...]
    deployment_id: str | None
    deployment_name: str | None
    deployment_version: int | None
    warnings: tuple[str, ...]
    response: dict[str, Any] | None = Field(
        description="What the job made; of a deploy the endpoint and what runs, of an export `downloadUrl` (null for a "
        "key without the scope *Export Model*), `expiresOn`, `sizeBytes` and `sha256`."
    )
    created_on: Moment
    l_mod: Moment

    @classmethod
    def of(cls, job: Job, scopes: Collection[Scope]) -> "DockStatusOut":
        """As a key with `scopes` may see it."""
        return cls(
            id=job.job_id,
            dock_status_id=job.job_id,
            model_id=job.model_id,
            action=job.action,
            status=job.status,
            percentage_complete=job.percentage,
            phase=job.phase,
            message=job.message,
            reason=job.reason,
            log_tail=job.log_tail,
            status_logs=tuple(StatusLogOut.of(log) for log in job.logs),
            deployment_id=job.deployment_id,
            deployment_name=job.deployment_name,
            deployment_version=job.deployment_version,
            warnings=job.warnings,
            response=_visible(job.response, scopes),
            created_on=job.created_at,
            l_mod=job.modified_at,
        )


def _visible(response: dict[str, Any] | None, scopes: Collection[Scope]) -> dict[str, Any] | None:
    """A download link needs no key, so who may not export is not shown it."""
    if response is None or "downloadUrl" not in response or Scope.EXPORT in scopes:
        return response
    return {**response, "downloadUrl": None}


class DockStatusesOut(Listing):
    dock_statuses: tuple[DockStatusOut, ...]
