"""Models: import, list, show, delete, and what they leave behind."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Body, Query

from dockyard.api.access import Caller, needs
from dockyard.api.route import Ctx, Route, UnknownParameters
from dockyard.api.wire.base import unknown_fields
from dockyard.api.wire.deploy import AcceptedOut
from dockyard.api.wire.deployments import DeploymentOut, DeploymentsOut
from dockyard.api.wire.fields import OneOf, QueryFlag, QueryInteger
from dockyard.api.wire.models import IMPORT_EXAMPLES, ImportIn, ModelDeletedOut, ModelOut, ModelsOut
from dockyard.api.wire.pruning import PruneOut
from dockyard.api.wire.query import DEFAULT_LIMIT, Cursor, Limit, ModelId
from dockyard.domain.access import Scope
from dockyard.domain.lifecycle import ModelState
from dockyard.domain.spec import Bounds
from dockyard.services.deployments import list_deployments
from dockyard.services.models import delete_model, get_model, import_model, list_models
from dockyard.services.pruning import UNUSED_DAYS, prune_artifacts

router = APIRouter(route_class=Route, tags=["Models"])


@router.post(
    "/models",
    summary="Import a model",
    operation_id="importModel",
    status_code=201,
    dependencies=[needs(Scope.IMPORT)],
    responses={404: {}},
)
async def create(
    ctx: Ctx, caller: Caller, body: Annotated[ImportIn, Body(openapi_examples=IMPORT_EXAMPLES)]
) -> AcceptedOut:
    """Register the model and bring its files in behind the reply: watch `dockStatusId` with *Get dock status*."""
    return AcceptedOut.of(await import_model(ctx, body.wish(unknown_fields(body)), caller.key_id))


@router.get("/models", summary="List models", operation_id="listModels", dependencies=[needs(Scope.VIEW)])
async def index(
    ctx: Ctx,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    state: Annotated[ModelState | None, OneOf(ModelState), Query(description="Only models in this state.")] = None,
) -> ModelsOut:
    """Newest first."""
    page = await list_models(ctx, limit, cursor, state)
    return ModelsOut(
        models=tuple(ModelOut.of(model) for model in page.items), total=page.total, next_cursor=page.next_cursor
    )


@router.get("/models/{modelId}", summary="Show a model", operation_id="getModel", dependencies=[needs(Scope.VIEW)])
async def show(ctx: Ctx, model_id: ModelId) -> ModelOut:
    return ModelOut.of(await get_model(ctx, model_id))


@router.delete(
    "/models/{modelId}",
    summary="Delete a model",
    operation_id="deleteModel",
    dependencies=[needs(Scope.DELETE)],
    responses={409: {}},
)
async def delete(ctx: Ctx, model_id: ModelId) -> ModelDeletedOut:
    """Delete a model that nothing serves, with its files and its undeployed deployments."""
    return ModelDeletedOut(model_id=model_id, freed_bytes=await delete_model(ctx, model_id))


@router.post(
    "/artifacts/prune",
    summary="Prune artifacts",
    operation_id="pruneArtifacts",
    dependencies=[needs(Scope.DELETE)],
)
async def prune(
    ctx: Ctx,
    unknown: UnknownParameters,
    unused_days: Annotated[
        int,
        QueryInteger(Bounds(0, 3650)),
        Query(alias="unusedDays", description="What a version ran on within so many days stays."),
    ] = UNUSED_DAYS,
    dry_run: Annotated[
        bool, QueryFlag(), Query(alias="dryRun", description="Remove nothing, reply with what would be.")
    ] = False,
) -> PruneOut:
    """Remove stored files that nobody needs: converted or merged ones that nothing runs on and nothing ran on for
    long, those of no model, and those that a killed server left. Files that a model was imported from stay.
    """
    pruning = await prune_artifacts(ctx, timedelta(days=unused_days), dry_run=dry_run)
    return PruneOut.of(pruning, dry_run=dry_run, warnings=unknown)


@router.get(
    "/models/{modelId}/deployments",
    summary="List a model's deployments",
    operation_id="listDeploymentsOfModel",
    dependencies=[needs(Scope.VIEW)],
)
async def deployments(
    ctx: Ctx, model_id: ModelId, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> DeploymentsOut:
    """Newest first, the undeployed ones included."""
    page = await list_deployments(ctx, limit, cursor, model_id)
    return DeploymentsOut(
        deployments=tuple(DeploymentOut.of(view) for view in page.items), total=page.total, next_cursor=page.next_cursor
    )
