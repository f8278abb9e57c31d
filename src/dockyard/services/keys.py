"""Apps, their keys, and the inference keys of deployments."""

from collections.abc import Sequence
from dataclasses import replace

from dockyard.domain.access import ApiKey, App, Scope, digest_of, new_key
from dockyard.domain.ids import new_id
from dockyard.errors import Conflict, Forbidden, NotFound, Reason
from dockyard.services.context import Context
from dockyard.store.paging import Page
from dockyard.store.transaction import Transaction

ADMIN_APP = "admin"


async def create_app(ctx: Context, name: str, scopes: Sequence[Scope], *, granted_by: frozenset[Scope]) -> App:
    """A new app. Raises `Forbidden` for scopes that whoever asks lacks (`granted_by`: what he has)."""
    _check_granted(scopes, granted_by)
    app = App(app_id=new_id("app"), name=name, scopes=tuple(dict.fromkeys(scopes)), created_at=ctx.clock.now())
    async with ctx.store.transaction() as tx:
        await tx.apps.add(app)
    return app


async def list_apps(ctx: Context, limit: int, cursor: str | None) -> Page[App]:
    async with ctx.store.reading() as tx:
        return await tx.apps.page(limit, cursor)


async def change_app(
    ctx: Context, app_id: str, name: str | None, scopes: Sequence[Scope] | None, *, granted_by: frozenset[Scope]
) -> App:
    """Rename an app or give it other scopes; its keys have them at once. Raises `Forbidden` as `create_app` does."""
    _check_granted(scopes or (), granted_by)
    async with ctx.store.transaction() as tx:
        before = await _grantable(tx)
        app = await tx.apps.get(app_id)
        app = await tx.apps.save(
            replace(
                app,
                name=app.name if name is None else name,
                scopes=app.scopes if scopes is None else tuple(dict.fromkeys(scopes)),
            )
        )
        await _keep_a_way_in(tx, before)
    await ctx.keyring.refresh()
    return app


async def delete_app(ctx: Context, app_id: str) -> None:
    """Delete an app with all its keys, which are refused from then on."""
    async with ctx.store.transaction() as tx:
        before = await _grantable(tx)
        app = await tx.apps.get(app_id)
        await tx.apps.delete(app.app_id)
        await _keep_a_way_in(tx, before)
    await ctx.keyring.refresh()


async def create_key(
    ctx: Context,
    name: str,
    *,
    app_id: str | None = None,
    deployment_id: str | None = None,
    granted_by: frozenset[Scope] = frozenset(),
) -> tuple[ApiKey, str]:
    """A new key and its secret, which is not kept: this is the only time it can be shown.

    Raises `Forbidden` for a key of an app with scopes that whoever asks lacks (`granted_by`: what he has).
    """
    secret = new_key()
    key = ApiKey(
        key_id=new_id("ak"),
        name=name,
        digest=digest_of(secret),
        last_four=secret[-4:],
        created_at=ctx.clock.now(),
        app_id=app_id,
        deployment_id=deployment_id,
    )
    async with ctx.store.transaction() as tx:
        if app_id is not None:
            _check_granted((await tx.apps.get(app_id)).scopes, granted_by)
        if deployment_id is not None:
            await tx.deployments.get(deployment_id)
        await tx.keys.add(key)
    await ctx.keyring.refresh()
    return key, secret


async def list_keys(
    ctx: Context, limit: int, cursor: str | None, *, app_id: str | None = None, deployment_id: str | None = None
) -> Page[ApiKey]:
    """The keys that are not revoked, newest first."""
    async with ctx.store.reading() as tx:
        if app_id is not None:
            await tx.apps.get(app_id)
        if deployment_id is not None:
            await tx.deployments.get(deployment_id)
        return await tx.keys.page(limit, cursor, app_id=app_id, deployment_id=deployment_id)


async def revoke_key(ctx: Context, key_id: str, *, app_id: str | None = None, deployment_id: str | None = None) -> None:
    """Revoke a key of that app or deployment. It is refused as soon as this returns."""
    async with ctx.store.transaction() as tx:
        before = await _grantable(tx)
        key = await tx.keys.get(key_id)
        if key.app_id != app_id or key.deployment_id != deployment_id or key.revoked_at is not None:
            raise NotFound(f"there is no key {key_id} here")
        await tx.keys.save(replace(key, revoked_at=ctx.clock.now()))
        await _keep_a_way_in(tx, before)
    await ctx.keyring.refresh()


async def ensure_admin_key(ctx: Context, secret: str) -> bool:
    """Make `secret` a key with every scope, if it is not known yet. False: it was revoked, and stays so."""
    digest = digest_of(secret)
    now = ctx.clock.now()
    async with ctx.store.transaction() as tx:
        known = await tx.keys.with_digest(digest)
        if known is not None:
            return known.revoked_at is None
        app = App(app_id=new_id("app"), name=ADMIN_APP, scopes=tuple(Scope), created_at=now)
        await tx.apps.add(app)
        await tx.keys.add(
            ApiKey(
                key_id=new_id("ak"),
                name="first start",
                digest=digest,
                last_four=secret[-4:],
                created_at=now,
                app_id=app.app_id,
            )
        )
    await ctx.keyring.refresh()
    return True


def _check_granted(scopes: Sequence[Scope], granted_by: frozenset[Scope]) -> None:
    """Nobody hands out more than he has."""
    beyond = [repr(scope.value) for scope in dict.fromkeys(scopes) if scope not in granted_by]
    if beyond:
        raise Forbidden(
            f"your own key's app lacks {', '.join(beyond)}, so it cannot give that to another; use a key that has it"
        )


async def _grantable(tx: Transaction) -> frozenset[Scope]:
    """The scopes that somebody can hand out: those beside 'Manage Keys' on a key."""
    managing = (scopes for _, scopes in await tx.keys.all_active() if Scope.MANAGE_KEYS in scopes)
    return frozenset(scope for scopes in managing for scope in scopes)


async def _keep_a_way_in(tx: Transaction, before: frozenset[Scope]) -> None:
    """Refuse a change after which nobody could hand out a scope that somebody could `before`: nobody could mend it."""
    lost = before - await _grantable(tx)
    if lost:
        named = ", ".join(repr(scope.value) for scope in Scope if scope in lost)
        raise Conflict(
            f"after this no key could hand out {named}; give another app 'Manage Keys' with the same scopes and a key "
            "first",
            reason=Reason.MISSING_SCOPE,
        )
