"""Makes the SQLAlchemy engine for a database URL, and sets up its connections."""

from pathlib import Path
from typing import Any

from sqlalchemy import URL, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from dockyard.errors import Invalid, Unavailable
from dockyard.store.columns import json_text

BUSY_TIMEOUT_MS = 10_000  # how long a writer waits for another process's transaction
CONNECT_TIMEOUT_S = 10
IDLE_IN_TRANSACTION_MS = 60_000  # PostgreSQL ends a transaction whose owner hangs, and so frees the write lock

STATEMENT_TIMEOUT_S = 60  # of PostgreSQL: for a network that swallows the answer

READING = "dockyard_reading"  # the execution option of a SQLite connection that will only read

DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}

# WAL: readers and the one writer do not wait for each other. NORMAL: a power cut may lose the last transactions,
# a crash of the process loses none, and the file stays whole either way.
# The cache is each connection's own, in KiB; the kernel's is behind it. With the usual 2 MiB a server's memory goes on
# growing for hours as it meets more pages.
PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA cache_size = -256",
)


def read_url(text: str) -> URL:
    """The URL with the driver that Dockyard uses. Raises `Invalid`, never showing the password."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise Invalid(
            "the database URL cannot be read; it has the form sqlite:///path/to/file or postgresql://user@host/name"
        ) from None
    driver = DRIVERS.get(url.drivername)
    if driver is None:
        raise Invalid(f"there is no support for databases of the kind {url.drivername!r}; use sqlite or postgresql")
    if is_sqlite(url) and url.database in (None, "", ":memory:"):
        raise Invalid("the SQLite database needs a file, as in sqlite:///path/to/file")
    return _with_asyncpg_names(url.set(drivername=driver))


def is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def make_engine(url: URL) -> AsyncEngine:
    """An engine for `url`, not connected yet. A new SQLite file is made here, readable to its owner only."""
    return _sqlite_engine(url) if is_sqlite(url) else _postgresql_engine(url)


def _sqlite_engine(url: URL) -> AsyncEngine:
    Path(url.database or "").touch(mode=0o600)
    # The connection used last: each keeps statements and pages in memory, so no more are used than are needed at once.
    engine = create_async_engine(url, json_serializer=json_text, hide_parameters=True, pool_use_lifo=True)
    event.listen(engine.sync_engine, "connect", _set_up_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: DBAPIConnection, _record: Any) -> None:
    # The driver would begin transactions by itself, late and never IMMEDIATE; `_begin_sqlite` does it instead.
    connection.isolation_level = None  # type: ignore[attr-defined]
    cursor = connection.cursor()
    for pragma in (f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}", *PRAGMAS):
        cursor.execute(pragma)
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    # IMMEDIATE takes the write lock at once. A transaction that began by reading could not get it any more if
    # another one wrote in between; SQLite fails such an upgrade without waiting.
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get(READING) else "BEGIN IMMEDIATE")


def _postgresql_engine(url: URL) -> AsyncEngine:
    settings = {
        "application_name": "dockyard",
        "lock_timeout": str(BUSY_TIMEOUT_MS),
        "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_MS),
    }
    try:
        return create_async_engine(
            url,
            json_serializer=json_text,
            hide_parameters=True,
            pool_pre_ping=True,  # a connection may have died with the server while it lay in the pool
            connect_args={
                "timeout": CONNECT_TIMEOUT_S,
                "command_timeout": STATEMENT_TIMEOUT_S,
                "server_settings": settings,
            },
        )
    except ModuleNotFoundError as error:
        raise Unavailable("PostgreSQL needs a driver: pip install 'dockyard[postgres]'") from error


def _with_asyncpg_names(url: URL) -> URL:
    """`sslmode`, which every other PostgreSQL client calls so, in asyncpg's spelling."""
    mode = url.query.get("sslmode")
    if mode is None:
        return url
    return url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
