"""API apps, their keys, and the inference keys of deployments."""

from fastapi import APIRouter

from dockyard.api.access import Caller, needs
from dockyard.api.route import Ctx, Route
from dockyard.api.wire.access import (
    AppDeletedOut,
    AppOut,
    AppsOut,
    ChangeAppIn,
    CreateAppIn,
    CreateKeyIn,
    KeyCreatedOut,
    KeyOut,
    KeyRevokedOut,
    KeysOut,
)
from dockyard.api.wire.base import unknown_fields
from dockyard.api.wire.query import DEFAULT_LIMIT, AppId, Cursor, DeploymentId, KeyId, Limit
from dockyard.domain.access import ApiKey, Scope
from dockyard.services import keys as service
from dockyard.store.paging import Page

router = APIRouter(route_class=Route, tags=["Access"])

_MANAGE = [needs(Scope.MANAGE_KEYS)]


@router.post("/apps", summary="Create an API app", operation_id="createApp", status_code=201, dependencies=_MANAGE)
async def create_app(ctx: Ctx, caller: Caller, body: CreateAppIn) -> AppOut:
    """A name and what its keys may do: no scope that the key which asks lacks itself."""
    app = await service.create_app(ctx, body.name, body.scopes, granted_by=caller.scopes)
    return AppOut.of(app, unknown_fields(body))


@router.get("/apps", summary="List API apps", operation_id="listApps", dependencies=_MANAGE)
async def list_apps(ctx: Ctx, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> AppsOut:
    """Newest first."""
    page = await service.list_apps(ctx, limit, cursor)
    return AppsOut(apps=tuple(AppOut.of(app) for app in page.items), total=page.total, next_cursor=page.next_cursor)


@router.patch(
    "/apps/{appId}", summary="Change an API app", operation_id="changeApp", dependencies=_MANAGE, responses={409: {}}
)
async def change_app(ctx: Ctx, caller: Caller, app_id: AppId, body: ChangeAppIn) -> AppOut:
    """Rename it, or give it other scopes: none that the key which asks lacks itself."""
    app = await service.change_app(ctx, app_id, body.name, body.scopes, granted_by=caller.scopes)
    return AppOut.of(app, unknown_fields(body))


@router.delete(
    "/apps/{appId}", summary="Delete an API app", operation_id="deleteApp", dependencies=_MANAGE, responses={409: {}}
)
async def delete_app(ctx: Ctx, app_id: AppId) -> AppDeletedOut:
    """Delete it with all its keys, which are refused from then on."""
    await service.delete_app(ctx, app_id)
    return AppDeletedOut(app_id=app_id)


@router.post(
    "/apps/{appId}/keys",
    summary="Create a key",
    operation_id="createKey",
    status_code=201,
    dependencies=_MANAGE,
    responses={409: {}},
)
async def create_key(ctx: Ctx, caller: Caller, app_id: AppId, body: CreateKeyIn) -> KeyCreatedOut:
    """The reply shows the key this once; of an app with a scope that the caller lacks, none is made."""
    key, secret = await service.create_key(ctx, body.name, app_id=app_id, granted_by=caller.scopes)
    return _created(key, secret, unknown_fields(body))


@router.get("/apps/{appId}/keys", summary="List keys", operation_id="listKeys", dependencies=_MANAGE)
async def list_keys(ctx: Ctx, app_id: AppId, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> KeysOut:
    """Newest first, without the revoked ones; never the keys themselves."""
    return _listed(await service.list_keys(ctx, limit, cursor, app_id=app_id))


@router.delete(
    "/apps/{appId}/keys/{keyId}",
    summary="Revoke a key",
    operation_id="revokeKey",
    dependencies=_MANAGE,
    responses={409: {}},
)
async def revoke_key(ctx: Ctx, app_id: AppId, key_id: KeyId) -> KeyRevokedOut:
    """It is refused as soon as the reply is there."""
    await service.revoke_key(ctx, key_id, app_id=app_id)
    return KeyRevokedOut(key_id=key_id)


@router.post(
    "/deployments/{deploymentId}/keys",
    summary="Create an inference key",
    operation_id="createInferenceKey",
    status_code=201,
    dependencies=_MANAGE,
    responses={409: {}},
)
async def create_inference_key(ctx: Ctx, deployment_id: DeploymentId, body: CreateKeyIn) -> KeyCreatedOut:
    """A key that may use this deployment and nothing else. The reply shows it this once."""
    key, secret = await service.create_key(ctx, body.name, deployment_id=deployment_id)
    return _created(key, secret, unknown_fields(body))


@router.get(
    "/deployments/{deploymentId}/keys",
    summary="List inference keys",
    operation_id="listInferenceKeys",
    dependencies=_MANAGE,
)
async def list_inference_keys(
    ctx: Ctx, deployment_id: DeploymentId, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> KeysOut:
    """Newest first, without the revoked ones; never the keys themselves."""
    return _listed(await service.list_keys(ctx, limit, cursor, deployment_id=deployment_id))


@router.delete(
    "/deployments/{deploymentId}/keys/{keyId}",
    summary="Revoke an inference key",
    operation_id="revokeInferenceKey",
    dependencies=_MANAGE,
    responses={409: {}},
)
async def revoke_inference_key(ctx: Ctx, deployment_id: DeploymentId, key_id: KeyId) -> KeyRevokedOut:
    """It is refused as soon as the reply is there."""
    await service.revoke_key(ctx, key_id, deployment_id=deployment_id)
    return KeyRevokedOut(key_id=key_id)


def _created(key: ApiKey, secret: str, warnings: tuple[str, ...]) -> KeyCreatedOut:
    return KeyCreatedOut(key_id=key.key_id, name=key.name, key=secret, created_on=key.created_at, warnings=warnings)


def _listed(page: Page[ApiKey]) -> KeysOut:
    return KeysOut(keys=tuple(KeyOut.of(key) for key in page.items), total=page.total, next_cursor=page.next_cursor)
