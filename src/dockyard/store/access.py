"""API apps and keys. A key is known by its digest only."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, bindparam, or_, update

from dockyard.domain.access import ApiKey, App, Scope
from dockyard.store.paging import Page
from dockyard.store.repository import RevisedRepository
from dockyard.store.rows import from_row, to_row
from dockyard.store.tables import ApiKeyRow, AppRow


class Apps(RevisedRepository[App]):
    noun = "app"
    kind = App
    row = AppRow
    key = "app_id"

    async def page(self, limit: int, cursor: str | None = None) -> Page[App]:
        return await self._page([], limit, cursor)


class Keys(RevisedRepository[ApiKey]):
    noun = "key"
    kind = ApiKey
    row = ApiKeyRow
    key = "key_id"

    async def page(
        self,
        limit: int,
        cursor: str | None = None,
        app_id: str | None = None,
        deployment_id: str | None = None,
    ) -> Page[ApiKey]:
        """The keys that are not revoked."""
        conditions: list[ColumnElement[bool]] = [ApiKeyRow.revoked_at.is_(None)]
        if app_id is not None:
            conditions.append(ApiKeyRow.app_id == app_id)
        if deployment_id is not None:
            conditions.append(ApiKeyRow.deployment_id == deployment_id)
        return await self._page(conditions, limit, cursor)

    async def all_active(self) -> list[tuple[ApiKey, tuple[Scope, ...]]]:
        """Every key that was not revoked, with the scopes of its app; () for a deployment's inference key."""
        query = (
            self._select()
            .add_columns(AppRow.scopes.label("_scopes"))
            .join_from(self._table, AppRow, AppRow.app_id == ApiKeyRow.app_id, isouter=True)
            .where(ApiKeyRow.revoked_at.is_(None))
            .order_by(ApiKeyRow.created_at, ApiKeyRow.key_id)
        )
        return [(from_row(ApiKey, row), row["_scopes"] or ()) for row in await self._executor.rows(query)]

    async def with_digest(self, digest: str) -> ApiKey | None:
        """The key of that digest, revoked or not."""
        found = await self._all(self._select().where(ApiKeyRow.digest == digest))
        return found[0] if found else None

    async def touch(self, used_at: Mapping[str, datetime]) -> None:
        """Note when keys were last used, by key id. An older instant changes nothing; nor does the revision."""
        if not used_at:
            return
        earlier = or_(ApiKeyRow.last_used_at.is_(None), ApiKeyRow.last_used_at < bindparam("used_at"))
        await self._executor.write(
            update(self._table)
            .where(ApiKeyRow.key_id == bindparam("used_key_id"), earlier)
            .values(last_used_at=bindparam("used_at")),
            [{"used_key_id": key_id, "used_at": at} for key_id, at in used_at.items()],
        )

    def _values(self, entity: ApiKey) -> dict[str, Any]:
        values = to_row(entity)
        del values["last_used_at"]  # `touch` alone writes it, and may have since the key was read
        return values
