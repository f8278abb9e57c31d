"""One connection inside a transaction: runs statements and translates what goes wrong."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import CursorResult, Executable, RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from dockyard.store.failures import translated
from dockyard.store.uninterrupted import uninterrupted


class Executor:
    """What repositories see of the database."""

    def __init__(self, connection: AsyncConnection, *, writable: bool) -> None:
        self._connection = connection
        self._writable = writable

    async def rows(self, query: Executable) -> Sequence[RowMapping]:
        return (await self._run(query)).mappings().all()

    async def value(self, query: Executable) -> Any:
        """The one value of the one row that `query` gives."""
        return (await self._run(query)).scalar_one()

    async def write(self, statement: Executable, parameters: Sequence[dict[str, Any]] | None = None) -> int:
        """Run an INSERT, UPDATE or DELETE; returns how many rows it met (not told for several `parameters`)."""
        self._check_writable()
        return (await self._run(statement, parameters)).rowcount

    async def write_returning(self, statement: Executable) -> Sequence[RowMapping]:
        """Run a statement that has a RETURNING clause; returns its rows."""
        self._check_writable()
        return await self.rows(statement)

    async def _run(
        self, statement: Executable, parameters: Sequence[dict[str, Any]] | None = None
    ) -> CursorResult[Any]:
        with translated():
            return await uninterrupted(self._connection.execute(statement, parameters))

    def _check_writable(self) -> None:
        if not self._writable:
            raise RuntimeError("this is Store.reading(); write inside Store.transaction()")
