"""Deployments and their versions."""

from datetime import datetime
from typing import Any

from sqlalchemy import Select, exists, func, or_, select

from dockyard.domain.deployment import LIVE, Deployment, Version
from dockyard.store.paging import Page
from dockyard.store.repository import RevisedRepository
from dockyard.store.tables import DeploymentRow, VersionRow


class Deployments(RevisedRepository[Deployment]):
    noun = "deployment"
    kind = Deployment
    row = DeploymentRow
    key = "deployment_id"

    async def page(self, limit: int, cursor: str | None = None, model_id: str | None = None) -> Page[Deployment]:
        return await self._page([] if model_id is None else [DeploymentRow.model_id == model_id], limit, cursor)

    async def named(self, name: str) -> list[Deployment]:
        """All that ever had the name, newest first; at most one of them is wanted."""
        return await self._all(self._newest_first().where(DeploymentRow.name == name))

    async def of_model(self, model_id: str) -> list[Deployment]:
        """Newest first."""
        return await self._all(self._newest_first().where(DeploymentRow.model_id == model_id))

    async def all_wanted_or_live(self) -> list[Deployment]:
        """Those that are wanted, and those that have a version which has not ended yet. Oldest first."""
        live = exists().where(VersionRow.deployment_id == DeploymentRow.deployment_id, VersionRow.state.in_(LIVE))
        return await self._all(
            self._select()
            .where(or_(DeploymentRow.wanted, live))
            .order_by(DeploymentRow.created_at, DeploymentRow.deployment_id)
        )

    def _newest_first(self) -> Select[Any]:
        return self._select().order_by(DeploymentRow.created_at.desc(), DeploymentRow.deployment_id.desc())


class Versions(RevisedRepository[Version]):
    noun = "version"
    kind = Version
    row = VersionRow
    key = "version_id"

    async def page(self, deployment_id: str, limit: int, cursor: str | None = None) -> Page[Version]:
        return await self._page([VersionRow.deployment_id == deployment_id], limit, cursor)

    async def of_deployment(self, deployment_id: str) -> list[Version]:
        """By number, the first version first."""
        return await self._all(
            self._select().where(VersionRow.deployment_id == deployment_id).order_by(VersionRow.number)
        )

    async def last_use(self) -> list[tuple[str, str | None, datetime]]:
        """(model, artifact, when a version of that model on that artifact last changed)."""
        columns = self._table.c
        last = func.max(columns.modified_at, type_=columns.modified_at.type).label("last")
        rows = await self._executor.rows(
            select(columns.model_id, columns.artifact_key, last).group_by(columns.model_id, columns.artifact_key)
        )
        return [(row["model_id"], row["artifact_key"], row["last"]) for row in rows]

    async def live(self) -> list[Version]:
        """All that have not ended, by deployment and number."""
        return await self._all(
            self._select().where(VersionRow.state.in_(LIVE)).order_by(VersionRow.deployment_id, VersionRow.number)
        )
