"""Dock status: watch and cancel the work behind a reply."""

from typing import Annotated

from fastapi import APIRouter, Query

from dockyard.api.access import Caller, needs
from dockyard.api.route import Ctx, Route
from dockyard.api.wire.dock_status import DockStatusesOut, DockStatusOut
from dockyard.api.wire.fields import OneOf
from dockyard.api.wire.query import DEFAULT_LIMIT, Cursor, DockStatusId, Limit
from dockyard.domain.access import Scope
from dockyard.domain.lifecycle import JobStatus
from dockyard.services.jobs import cancel_job, get_job, list_jobs

router = APIRouter(route_class=Route, tags=["Dock status"])


@router.get(
    "/dock-status", summary="List dock statuses", operation_id="listDockStatus", dependencies=[needs(Scope.VIEW)]
)
async def index(
    ctx: Ctx,
    caller: Caller,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    model_id: Annotated[str | None, Query(alias="modelId", description="Only the work on this model.")] = None,
    status: Annotated[JobStatus | None, OneOf(JobStatus), Query(description="Only work that stands so.")] = None,
) -> DockStatusesOut:
    """Newest first."""
    page = await list_jobs(ctx, limit, cursor, model_id, status)
    return DockStatusesOut(
        dock_statuses=tuple(DockStatusOut.of(job, caller.scopes) for job in page.items),
        total=page.total,
        next_cursor=page.next_cursor,
    )


@router.get(
    "/dock-status/{dockStatusId}", summary="Get dock status", operation_id="getDockStatus", dependencies=[needs(None)]
)
async def show(ctx: Ctx, caller: Caller, dock_status_id: DockStatusId) -> DockStatusOut:
    """How far the work is. Any key of an API app may ask."""
    return DockStatusOut.of(await get_job(ctx, dock_status_id), caller.scopes)


@router.post(
    "/dock-status/{dockStatusId}/cancel",
    summary="Cancel work",
    operation_id="cancelDockStatus",
    dependencies=[needs(None)],
    responses={409: {}},
)
async def cancel(ctx: Ctx, caller: Caller, dock_status_id: DockStatusId) -> DockStatusOut:
    """Ask for the end of a deploy, an import or an export: it goes to FAILED with CANCELLED. Asking twice is fine.

    The key needs the scope that the work itself needed.
    """
    return DockStatusOut.of(await cancel_job(ctx, dock_status_id, caller.scopes), caller.scopes)
