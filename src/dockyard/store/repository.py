"""What all repositories share: add, get, find, save, delete, and pages of entities."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from sqlalchemy import ColumnElement, Select, delete, func, insert, literal, select, tuple_, update

from dockyard.errors import NotFound, Reason, Stale
from dockyard.store.executor import Executor
from dockyard.store.paging import Page, read_cursor, to_cursor
from dockyard.store.rows import Entity, field_names, from_row, table_of, to_row
from dockyard.store.tables import Base


class Revised(Entity, Protocol):
    """An entity whose row counts its changes."""

    @property
    def revision(self) -> int: ...


E = TypeVar("E", bound=Entity)
R = TypeVar("R", bound=Revised)


class Repository(Generic[E]):
    """Entities of one kind, in one table. A subclass names them and adds the queries of its own."""

    noun: ClassVar[str]
    kind: type[E]
    row: ClassVar[type[Base]]
    key: ClassVar[str]  # the field that holds the id
    # What orders a listing: an instant, and what tells apart rows of the same instant; by default the id.
    at: ClassVar[str] = "created_at"
    tie: ClassVar[str | None] = None

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._table = table_of(self.row)
        self._id = self._table.c[self.key]

    async def add(self, entity: E) -> None:
        await self._executor.write(insert(self._table).values(to_row(entity)))

    async def get(self, id: str) -> E:
        """The entity, or `NotFound`."""
        found = await self.find(id)
        if found is None:
            raise NotFound(f"there is no {self.noun} {id}")
        return found

    async def find(self, id: str) -> E | None:
        found = await self._all(self._select().where(self._id == id))
        return found[0] if found else None

    async def delete(self, id: str) -> None:
        """Delete the entity and what belongs to it; no error when it is gone already."""
        await self._executor.write(delete(self._table).where(self._id == id))

    def _select(self) -> Select[Any]:
        return select(*(self._table.c[name] for name in field_names(self.kind)))

    async def _all(self, query: Select[Any]) -> list[E]:
        return [from_row(self.kind, row) for row in await self._executor.rows(query)]

    async def _page(self, conditions: Sequence[ColumnElement[bool]], limit: int, cursor: str | None) -> Page[E]:
        """At most `limit` entities, newest first, after the one that `cursor` names."""
        at, tie = self._table.c[self.at], self._table.c[self.tie or self.key]
        query = self._select().add_columns(at.label("_at"), tie.label("_tie")).where(*conditions)
        if cursor is not None:
            seen_at, seen_tie = read_cursor(cursor, tie.type.python_type)
            seen = tuple_(literal(seen_at, at.type), literal(seen_tie, tie.type))
            query = query.where(tuple_(at, tie) < seen)
        total = await self._executor.value(select(func.count()).select_from(self._table).where(*conditions))
        # One more than asked for tells whether there is a next page.
        rows = await self._executor.rows(query.order_by(at.desc(), tie.desc()).limit(limit + 1))
        shown = rows[:limit]
        more = len(rows) > limit and bool(shown)
        return Page(
            items=tuple(from_row(self.kind, row) for row in shown),
            total=total,
            next_cursor=to_cursor(shown[-1]["_at"], shown[-1]["_tie"]) if more else None,
        )


class RevisedRepository(Repository[R], Generic[R]):
    """Entities that change. A change goes through only if nobody changed the row since it was read."""

    async def save(self, entity: R) -> R:
        """Write the entity; returns it with its new revision. Raises `Stale` if the row changed or went away."""
        id, revision = getattr(entity, self.key), self._table.c.revision
        met = await self._executor.write(
            update(self._table)
            .where(self._id == id, revision == entity.revision)
            .values({**self._values(entity), "revision": entity.revision + 1})
        )
        if met == 0:
            raise Stale(
                f"{self.noun} {id} changed since it was read; load it again and decide anew",
                reason=Reason.CHANGED_MEANWHILE,
            )
        return replace(entity, revision=entity.revision + 1)

    def _values(self, entity: R) -> dict[str, Any]:
        """What a save writes. A subclass leaves out the columns that a method of its own keeps."""
        return to_row(entity)
