"""What is deployed: read it, change its endpoint timeout, roll it back."""

from typing import Annotated

from fastapi import APIRouter, Query

from dockyard.api.access import Caller, needs
from dockyard.api.route import Ctx, Route
from dockyard.api.wire.base import unknown_fields
from dockyard.api.wire.deploy import AcceptedOut
from dockyard.api.wire.deployments import (
    ChangeDeploymentIn,
    DeploymentOut,
    DeploymentsOut,
    EventOut,
    EventsOut,
    LogOut,
    LogsOut,
    ReplicaOut,
    ReplicasOut,
    RollbackIn,
    VersionOut,
    VersionsOut,
)
from dockyard.api.wire.fields import QueryInteger
from dockyard.api.wire.query import DEFAULT_LIMIT, Cursor, DeploymentId, Limit
from dockyard.domain.access import Scope
from dockyard.domain.spec import Bounds
from dockyard.services import deployments as service
from dockyard.services.deploys import rollback

router = APIRouter(route_class=Route, tags=["Deployments"], prefix="/deployments")

_VIEW = [needs(Scope.VIEW)]


@router.get("", summary="List deployments", operation_id="listDeployments", dependencies=_VIEW)
async def index(ctx: Ctx, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> DeploymentsOut:
    """Newest first, the undeployed ones included."""
    page = await service.list_deployments(ctx, limit, cursor)
    return DeploymentsOut(
        deployments=tuple(DeploymentOut.of(view) for view in page.items), total=page.total, next_cursor=page.next_cursor
    )


@router.get("/{deploymentId}", summary="Show a deployment", operation_id="getDeployment", dependencies=_VIEW)
async def show(ctx: Ctx, deployment_id: DeploymentId) -> DeploymentOut:
    return DeploymentOut.of(await service.get_deployment(ctx, deployment_id))


@router.patch(
    "/{deploymentId}",
    summary="Change the endpoint timeout",
    operation_id="changeDeployment",
    dependencies=[needs(Scope.DEPLOY)],
    responses={409: {}},
)
async def change(ctx: Ctx, deployment_id: DeploymentId, body: ChangeDeploymentIn) -> DeploymentOut:
    """Requests that arrive from now on have it."""
    view = await service.set_endpoint_timeout(ctx, deployment_id, body.endpoint_timeout)
    return DeploymentOut.of(view, unknown_fields(body))


@router.get("/{deploymentId}/events", summary="List events", operation_id="listEvents", dependencies=_VIEW)
async def events(
    ctx: Ctx, deployment_id: DeploymentId, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> EventsOut:
    """Who changed what, from what, to what, and why; newest first."""
    page = await service.list_events(ctx, deployment_id, limit, cursor)
    return EventsOut(
        events=tuple(EventOut.of(event) for event in page.items), total=page.total, next_cursor=page.next_cursor
    )


@router.get("/{deploymentId}/replicas", summary="List replicas", operation_id="listReplicas", dependencies=_VIEW)
async def replicas(ctx: Ctx, deployment_id: DeploymentId) -> ReplicasOut:
    """The living ones, all on one page, oldest first."""
    views = await service.list_replicas(ctx, deployment_id)
    return ReplicasOut(replicas=tuple(ReplicaOut.of(view) for view in views), total=len(views))


@router.get("/{deploymentId}/logs", summary="Read logs", operation_id="readLogs", dependencies=_VIEW)
async def logs(
    ctx: Ctx,
    deployment_id: DeploymentId,
    lines: Annotated[int, QueryInteger(Bounds(1, 2000)), Query(description="The last so many of each replica.")] = 200,
) -> LogsOut:
    """The last lines of each replica, also of those that failed."""
    kept = await service.read_logs(ctx, deployment_id, lines)
    return LogsOut(logs=tuple(LogOut(replica_id=replica_id, lines=text) for replica_id, text in kept))


@router.get("/{deploymentId}/versions", summary="List versions", operation_id="listVersions", dependencies=_VIEW)
async def versions(
    ctx: Ctx, deployment_id: DeploymentId, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> VersionsOut:
    """Newest first, each with its parameters."""
    page = await service.list_versions(ctx, deployment_id, limit, cursor)
    return VersionsOut(
        versions=tuple(VersionOut.of(version) for version in page.items), total=page.total, next_cursor=page.next_cursor
    )


@router.post(
    "/{deploymentId}/rollback",
    summary="Roll back",
    operation_id="rollbackDeployment",
    dependencies=[needs(Scope.DEPLOY)],
    responses={409: {}},
)
async def roll_back(ctx: Ctx, caller: Caller, deployment_id: DeploymentId, body: RollbackIn) -> AcceptedOut:
    """Deploy the parameters of an earlier version again, as a new version that takes over like any redeploy."""
    job = await rollback(ctx, deployment_id, body.version, caller.key_id)
    return AcceptedOut.of(job, unknown_fields(body))
