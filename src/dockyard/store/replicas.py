"""Replicas: what the fleet was asked to start, and what became of it."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select

from dockyard.domain.lifecycle import REPLICA, ReplicaState
from dockyard.domain.replica import Replica
from dockyard.store.repository import RevisedRepository
from dockyard.store.tables import ReplicaRow

ENDED = frozenset(state for state in ReplicaState if REPLICA.is_final(state))


class Replicas(RevisedRepository[Replica]):
    noun = "replica"
    kind = Replica
    row = ReplicaRow
    key = "replica_id"

    async def of_version(self, version_id: str) -> list[Replica]:
        """Oldest first, ended ones included."""
        return await self._all(self._oldest_first().where(ReplicaRow.version_id == version_id))

    async def of_deployment(self, deployment_id: str, *, living_only: bool = False) -> list[Replica]:
        """Oldest first."""
        query = self._oldest_first().where(ReplicaRow.deployment_id == deployment_id)
        return await self._all(query.where(ReplicaRow.state.not_in(ENDED)) if living_only else query)

    async def living(self) -> list[Replica]:
        """All that have not ended, oldest first."""
        return await self._all(self._oldest_first().where(ReplicaRow.state.not_in(ENDED)))

    async def ended_before(self, instant: datetime) -> list[Replica]:
        """The replicas that ended before `instant`, oldest first."""
        return await self._all(self._oldest_first().where(*self._ended_before(instant)))

    async def ended_beyond(self, newest: int) -> list[Replica]:
        """The ended replicas of each deployment but for the `newest` that ended last."""
        ended_at = func.coalesce(ReplicaRow.stopped_at, ReplicaRow.modified_at)
        place = func.row_number().over(
            partition_by=ReplicaRow.deployment_id, order_by=(ended_at.desc(), ReplicaRow.replica_id)
        )
        ranked = select(ReplicaRow.replica_id, place.label("place")).where(ReplicaRow.state.in_(ENDED)).subquery()
        beyond = select(ranked.c.replica_id).where(ranked.c.place > newest)
        return await self._all(self._oldest_first().where(ReplicaRow.replica_id.in_(beyond)))

    def _ended_before(self, instant: datetime) -> tuple[ColumnElement[bool], ...]:
        ended_at = func.coalesce(ReplicaRow.stopped_at, ReplicaRow.modified_at)
        return ReplicaRow.state.in_(ENDED), ended_at < instant

    def _oldest_first(self) -> Select[Any]:
        return self._select().order_by(ReplicaRow.created_at, ReplicaRow.replica_id)
