"""What databases do wrong reaches a caller as one of Dockyard's own errors."""

import errno
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from dockyard.domain.access import App
from dockyard.errors import Conflict, DockyardError, Failed, Invalid, Reason, Unavailable
from dockyard.store import engine as engine_module
from dockyard.store.database import Store
from dockyard.store.engine import make_engine, read_url
from dockyard.store.failures import ERRORS, POSTGRESQL_STATES, SQLITE_CODES, Trouble, translated, trouble_of

ON_SQLITE = pytest.mark.parametrize("new_database", ["sqlite"], indirect=True)
ON_POSTGRESQL = pytest.mark.parametrize("new_database", ["postgresql"], indirect=True)
APP = App(app_id="app-1", name="a", scopes=(), created_at=datetime(2026, 2, 5, tzinfo=UTC))

SQLITE_CONSTANTS = {
    "SQLITE_CONSTRAINT_UNIQUE": Trouble.DUPLICATE,
    "SQLITE_CONSTRAINT_PRIMARYKEY": Trouble.DUPLICATE,
    "SQLITE_CONSTRAINT_FOREIGNKEY": Trouble.REFERENCED,
    "SQLITE_CONSTRAINT_NOTNULL": Trouble.OTHER,
    "SQLITE_FULL": Trouble.FULL,
    "SQLITE_BUSY": Trouble.BUSY,
    "SQLITE_BUSY_SNAPSHOT": Trouble.BUSY,
    "SQLITE_LOCKED": Trouble.BUSY,
    "SQLITE_CANTOPEN": Trouble.UNREACHABLE,
    "SQLITE_IOERR": Trouble.UNREACHABLE,
    "SQLITE_IOERR_WRITE": Trouble.UNREACHABLE,
    "SQLITE_AUTH": Trouble.REFUSED,
    "SQLITE_PERM": Trouble.REFUSED,
    "SQLITE_READONLY": Trouble.READ_ONLY,
    "SQLITE_READONLY_DBMOVED": Trouble.READ_ONLY,
    "SQLITE_CORRUPT": Trouble.DAMAGED,
    "SQLITE_NOTADB": Trouble.DAMAGED,
    "SQLITE_ERROR": Trouble.OTHER,
}

STATES = {
    "23505": Trouble.DUPLICATE,
    "23503": Trouble.REFERENCED,
    "23502": Trouble.OTHER,
    "53100": Trouble.FULL,
    "53200": Trouble.BUSY,
    "53300": Trouble.BUSY,
    "55P03": Trouble.BUSY,
    "40001": Trouble.BUSY,
    "40P01": Trouble.BUSY,
    "57P01": Trouble.UNREACHABLE,
    "57P03": Trouble.UNREACHABLE,
    "58030": Trouble.UNREACHABLE,
    "08006": Trouble.UNREACHABLE,
    "25P03": Trouble.BUSY,
    "3D000": Trouble.REFUSED,
    "28P01": Trouble.REFUSED,
    "42501": Trouble.REFUSED,
    "25006": Trouble.READ_ONLY,
    "XX001": Trouble.DAMAGED,
    "XX002": Trouble.DAMAGED,
    "42P01": Trouble.OTHER,
}

KINDS: dict[Trouble, tuple[type[DockyardError], Reason]] = {
    Trouble.FULL: (Unavailable, Reason.DISK_FULL),
    Trouble.BUSY: (Unavailable, Reason.DATABASE_UNAVAILABLE),
    Trouble.UNREACHABLE: (Unavailable, Reason.DATABASE_UNAVAILABLE),
    Trouble.REFUSED: (Unavailable, Reason.DATABASE_UNAVAILABLE),
    Trouble.READ_ONLY: (Unavailable, Reason.DATABASE_UNAVAILABLE),
    Trouble.DAMAGED: (Failed, Reason.INTERNAL),
    Trouble.DUPLICATE: (Conflict, Reason.ALREADY_EXISTS),
    Trouble.REFERENCED: (Conflict, Reason.STILL_REFERENCED),
    Trouble.OTHER: (Failed, Reason.INTERNAL),
}


def test_the_tables_above_name_every_code_that_is_told_apart() -> None:
    assert {getattr(sqlite3, name) for name in SQLITE_CONSTANTS} >= set(SQLITE_CODES)
    assert all(any(state.startswith(known) for state in STATES) for known in POSTGRESQL_STATES)
    assert set(KINDS) == set(ERRORS) == set(Trouble)


@pytest.mark.parametrize(("trouble", "kind"), KINDS.items(), ids=str)
def test_every_trouble_is_a_kind_of_error_with_a_reason(
    trouble: Trouble, kind: tuple[type[DockyardError], Reason]
) -> None:
    error = ERRORS[trouble]()
    assert (type(error), error.reason) == kind
    assert (error.retry_after_s is not None) == isinstance(error, Unavailable)


@pytest.mark.parametrize(("name", "trouble"), SQLITE_CONSTANTS.items())
def test_sqlite_codes(name: str, trouble: Trouble) -> None:
    error = sqlite3.OperationalError(name)
    error.sqlite_errorcode = getattr(sqlite3, name)
    assert trouble_of(error) is trouble


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "no space"), ConnectionRefusedError(), TimeoutError()], ids=repr
)
def test_what_the_system_raises_while_connecting(error: OSError) -> None:
    assert trouble_of(error) is (Trouble.FULL if error.errno == errno.ENOSPC else Trouble.UNREACHABLE)


def test_what_sqlalchemy_itself_raises() -> None:
    assert trouble_of(PoolTimeoutError("no connection came free")) is Trouble.BUSY
    assert trouble_of(InvalidRequestError("a statement that makes no sense")) is Trouble.OTHER


def test_errors_that_are_no_databases_pass_through() -> None:
    with pytest.raises(KeyError), translated():
        raise KeyError("mine")
    with pytest.raises(Conflict, match="mine"), translated():
        raise Conflict("mine")


@ON_POSTGRESQL
async def test_postgresql_states(database_url: str) -> None:
    engine = make_engine(read_url(database_url))
    for state, trouble in STATES.items():
        fault = text(f"DO $$ BEGIN RAISE EXCEPTION 'made up' USING ERRCODE = '{state}'; END $$")
        with pytest.raises(KINDS[trouble][0]) as error, translated():
            async with engine.begin() as connection:
                await connection.execute(fault)
        assert str(error.value) == str(ERRORS[trouble]()), state
    await engine.dispose()


@ON_POSTGRESQL
async def test_a_connection_that_postgresql_ends_is_told_and_replaced(store: Store) -> None:
    async def end_the_connection() -> None:
        async with store.transaction() as tx:
            await tx.apps.add(APP)
            await tx.apps._executor.rows(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(Unavailable) as error:
        await end_the_connection()
    assert error.value.reason is Reason.DATABASE_UNAVAILABLE
    async with store.transaction() as tx:
        assert await tx.apps.find("app-1") is None
        await tx.apps.add(APP)


@ON_POSTGRESQL
async def test_an_answer_of_postgresql_that_does_not_come(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "STATEMENT_TIMEOUT_S", 0.5)
    store = Store(database_url)
    await store.open()

    async def wait_for_long() -> None:
        async with store.transaction() as tx:
            await tx.apps._executor.rows(text("SELECT pg_sleep(600)"))

    with pytest.raises(Unavailable) as error:
        await wait_for_long()
    assert error.value.reason is Reason.DATABASE_UNAVAILABLE
    async with store.transaction() as tx:
        await tx.apps.add(APP)
    await store.close()


@ON_POSTGRESQL
async def test_a_database_that_postgresql_does_not_have(database_url: str) -> None:
    with pytest.raises(Unavailable, match=r"no_such_name.*check the user.*does not exist"):
        await Store(database_url.replace("/test_", "/no_such_name_")).open()


async def test_a_postgresql_that_nobody_runs_is_named_without_the_password() -> None:
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1/dock.*cannot be reached") as error:
        await Store("postgresql://me:secret@127.0.0.1:1/dock").open()
    assert error.value.reason is Reason.DATABASE_UNAVAILABLE
    assert "secret" not in str(error.value)


async def test_a_sqlite_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"no-such-folder.*cannot be reached"):
        await Store(f"sqlite:///{tmp_path}/no-such-folder/dockyard.db").open()


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    file = tmp_path / "dockyard.db"
    file.write_bytes(b"something else entirely" * 1000)
    with pytest.raises(Failed, match=r"dockyard\.db.*damaged"):
        await Store(f"sqlite:///{file}").open()


@ON_SQLITE
async def test_a_full_disk_is_told_and_leaves_what_was_there(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "PRAGMAS", (*engine_module.PRAGMAS, "PRAGMA max_page_count = 80"))
    store = Store(database_url)
    await store.open()
    async with store.transaction() as tx:
        await tx.apps.add(APP)
    with pytest.raises(Unavailable) as full:
        async with store.transaction() as tx:
            await tx.apps.add(replace(APP, app_id="app-2", name="x" * 1_000_000))
    assert full.value.reason is Reason.DISK_FULL
    async with store.transaction() as tx:
        assert (await tx.apps.page(9)).items == (APP,)
        await tx.apps.delete("app-1")
    await store.close()


@ON_SQLITE
async def test_a_new_file_can_be_read_by_its_owner_only(database_url: str) -> None:
    store = Store(database_url)
    await store.open()
    file = Path(read_url(database_url).database or "")
    modes = {path.name: path.stat().st_mode & 0o777 for path in file.parent.glob("dockyard*")}
    await store.close()
    assert set(modes.values()) == {0o600}, modes


@pytest.mark.parametrize("url", ["mysql://host/name", "sqlite://", "sqlite:///:memory:", "no url", "", "sqlite"])
def test_urls_of_databases_that_cannot_be_used(url: str) -> None:
    with pytest.raises(Invalid):
        Store(url)


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("sqlite:///a.db", "sqlite+aiosqlite:///a.db"),
        ("sqlite+aiosqlite:////a/b.db", "sqlite+aiosqlite:////a/b.db"),
        ("postgres://u@h/n", "postgresql+asyncpg://u@h/n"),
        ("postgresql://u@h/n?sslmode=require", "postgresql+asyncpg://u@h/n?ssl=require"),
        ("postgresql+asyncpg://u@h:1/n", "postgresql+asyncpg://u@h:1/n"),
    ],
)
def test_urls_are_read_with_the_driver_that_is_used(url: str, read: str) -> None:
    assert str(read_url(url)) == read
