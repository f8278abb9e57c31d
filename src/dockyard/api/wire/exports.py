"""The reply to an export."""

from typing import Any, Literal

from pydantic import Field

from dockyard.api.wire.base import Warnings, WireOut
from dockyard.domain.job import Action, Job
from dockyard.domain.lifecycle import JobStatus


class ExportAcceptedOut(WireOut):
    """The archive is in the making. Watch `dockStatusId`: at SUCCESS its `response` has `downloadUrl`."""

    id: str = Field(serialization_alias="_id")
    dock_status_id: str
    dock_status_id_as_printed: str = Field(
        serialization_alias="dock-statusId", description="The same id, as other samples spell it."
    )
    model_id: str
    job_type: Literal["MODELS"] = "MODELS"
    action: Action
    status: JobStatus
    percentage_complete: int = Field(ge=0, le=100)
    response: None = Field(default=None, description="null until the job is SUCCESS.")
    warnings: Warnings = ()

    @classmethod
    def of(cls, job: Job, warnings: tuple[str, ...]) -> "ExportAcceptedOut":
        return cls(
            id=job.job_id,
            dock_status_id=job.job_id,
            dock_status_id_as_printed=job.job_id,
            model_id=job.model_id,
            action=job.action,
            status=job.status,
            percentage_complete=job.percentage,
            warnings=warnings,
        )


EXPORT_REPLIES: dict[str, Any] = {
    "content": {
        "application/json": {
            "example": {
                "_id": "ds-5f0c3c55-3f0e-4a0e-9f43-0d3c1a1f2b77",
                "dockStatusId": "ds-5f0c3c55-3f0e-4a0e-9f43-0d3c1a1f2b77",
                "dock-statusId": "ds-5f0c3c55-3f0e-4a0e-9f43-0d3c1a1f2b77",
                "modelId": "cm-0b6a3f0e-2f5d-4a39-8b0c-6a1f2d7c9e10",
                "jobType": "MODELS",
                "action": "EXPORT",
                "status": "IN_PROGRESS",
                "percentageComplete": 0,
                "response": None,
            }
        }
    }
}
