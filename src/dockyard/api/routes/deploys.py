"""Deploy and undeploy a model."""

from typing import Annotated

from fastapi import APIRouter, Body, Query

from dockyard.api.access import Caller, needs
from dockyard.api.route import Ctx, Route, UnknownParameters
from dockyard.api.wire.base import unknown_fields
from dockyard.api.wire.deploy import DEPLOY_EXAMPLES, AcceptedOut, DeployIn, PlanOut
from dockyard.api.wire.fields import OneOf, QueryFlag
from dockyard.api.wire.query import ModelId
from dockyard.domain.access import Scope
from dockyard.domain.spec import ModelType
from dockyard.services.deploys import deploy_model, plan_deploy, undeploy_model

router = APIRouter(route_class=Route, tags=["Deploy"])


@router.post(
    "/models/{modelId}/deploy",
    summary="Deploy a model",
    operation_id="deployModel",
    dependencies=[needs(Scope.DEPLOY)],
    responses={409: {}},
)
async def deploy(
    ctx: Ctx,
    caller: Caller,
    model_id: ModelId,
    body: Annotated[DeployIn, Body(openapi_examples=DEPLOY_EXAMPLES)],
    unknown: UnknownParameters,
    model_type: Annotated[
        ModelType, OneOf(ModelType), Query(alias="modelType", description="The type that the model was imported with.")
    ],
    dry_run: Annotated[
        bool, QueryFlag(), Query(alias="dryRun", description="Check everything, start nothing, reply with the plan.")
    ] = False,
) -> AcceptedOut | PlanOut:
    """Check the request, then deploy behind the reply: watch `dockStatusId` with *Get dock status*.

    A first deploy of a name makes the deployment; one of the same model and name is a redeploy, whose new version takes
    over without a lost request once it has proven itself.
    """
    wish = body.wish(model_type, ctx.policy.delay_unit_ms, (*unknown, *unknown_fields(body)))
    if dry_run:
        return PlanOut.of(await plan_deploy(ctx, model_id, wish))
    return AcceptedOut.of(await deploy_model(ctx, model_id, wish, caller.key_id))


@router.post(
    "/models/{modelId}/undeploy",
    summary="Undeploy a model",
    operation_id="undeployModel",
    dependencies=[needs(Scope.UNDEPLOY)],
    responses={409: {}},
)
async def undeploy(
    ctx: Ctx,
    caller: Caller,
    model_id: ModelId,
    unknown: UnknownParameters,
    name: Annotated[
        str | None, Query(description="One of several deployments; without it, all of the model's.")
    ] = None,
) -> AcceptedOut:
    """Refuse new requests at once, let the running ones finish, then stop the replicas."""
    return AcceptedOut.of(await undeploy_model(ctx, model_id, name, caller.key_id), unknown)
