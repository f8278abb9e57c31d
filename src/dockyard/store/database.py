"""The store: opens the database and hands out transactions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from dockyard.errors import DockyardError, Reason, Unavailable
from dockyard.store.engine import READING, make_engine, read_url
from dockyard.store.executor import Executor
from dockyard.store.failures import translated
from dockyard.store.locks import lock_writers
from dockyard.store.schema import ensure_schema
from dockyard.store.transaction import Transaction
from dockyard.store.uninterrupted import uninterrupted


class Store:
    """A database of Dockyard's, by URL: `sqlite:///file` or `postgresql://user:password@host/name`."""

    def __init__(self, url: str) -> None:
        self._url = read_url(url)
        self._engine: AsyncEngine | None = None
        self._writing = asyncio.Lock()
        self._writer: asyncio.Task[object] | None = None

    async def open(self) -> None:
        """Connect and bring the schema up to date.

        Raises `Unavailable` when the database cannot be reached and `Failed` when it is no database of this version;
        the message is for the person who starts the server, so it has the URL and the database's own words.
        """
        try:
            self._engine = await self._opened()
        except DockyardError as error:
            url = self._url.render_as_string(hide_password=True)
            words = getattr(error.__cause__, "orig", None) or error.__cause__
            message = f"{url}: {error.message}" + (f" ({words})" if words else "")
            raise type(error)(message, reason=error.reason, retry_after_s=error.retry_after_s) from error

    async def close(self) -> None:
        """Close all connections; the store may be opened again."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await uninterrupted(engine.dispose())

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Write. Commits at the end of the block, rolls back if it raises; one transaction at a time."""
        if self._writer is asyncio.current_task():
            raise RuntimeError("a transaction is open in this task already; use that one")
        async with self._writing:
            self._writer = asyncio.current_task()
            try:
                async with self._begun() as connection:
                    yield Transaction(Executor(connection, writable=True))
                    with translated():
                        await uninterrupted(_commit(connection))
            finally:
                self._writer = None

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Transaction]:
        """Read from one snapshot; waits for no writer."""
        async with self._begun(reading=True) as connection:
            yield Transaction(Executor(connection, writable=False))

    async def _opened(self) -> AsyncEngine:
        with translated():
            engine = make_engine(self._url)
        try:
            await uninterrupted(ensure_schema(engine))
        except BaseException:
            await uninterrupted(engine.dispose())
            raise
        return engine

    @asynccontextmanager
    async def _begun(self, *, reading: bool = False) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction, rolled back at the end unless it was committed.

        What the block raises passes through untouched: an OSError of a caller is not the database's.
        """
        if self._engine is None:
            raise Unavailable("the database is not open", reason=Reason.DATABASE_UNAVAILABLE)
        connection = self._engine.connect()
        try:
            with translated():
                await uninterrupted(_begin_reading(connection) if reading else _begin_writing(connection))
            yield connection
        finally:
            await uninterrupted(_end(connection))


async def _begin_reading(connection: AsyncConnection) -> None:
    """From here on the connection sees one state of the database."""
    await connection.start()
    if connection.dialect.name == "sqlite":
        await connection.execution_options(**{READING: True})
    else:
        await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    await connection.begin()


async def _begin_writing(connection: AsyncConnection) -> None:
    await connection.start()
    await connection.begin()
    await lock_writers(connection)


async def _commit(connection: AsyncConnection) -> None:
    try:
        await connection.commit()
    except BaseException:
        # SQLite leaves the transaction open when a commit fails, and SQLAlchemy counts it as over: such a
        # connection must not go back to the pool.
        await connection.invalidate()
        raise


async def _end(connection: AsyncConnection) -> None:
    if connection.sync_connection is not None:  # None: it could not even connect
        await connection.close()
