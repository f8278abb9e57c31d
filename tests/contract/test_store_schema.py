"""The schema: what the migrations make is what the tables say, and a start runs only what is missing."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from dockyard.domain.access import App
from dockyard.errors import Failed
from dockyard.store import schema
from dockyard.store.database import Store
from dockyard.store.engine import make_engine, read_url
from dockyard.store.tables import Base


def describe(connection: Connection) -> dict[str, Any]:
    """All that the database itself tells of its tables."""
    inspector = inspect(connection)

    def by_name(entries: list[Any]) -> list[Any]:
        return sorted(entries, key=lambda entry: str(entry["name"]))

    return {
        table: {
            "columns": [{**column, "type": repr(column["type"])} for column in inspector.get_columns(table)],
            "primary key": inspector.get_pk_constraint(table),
            "foreign keys": by_name(inspector.get_foreign_keys(table)),
            "unique": by_name(inspector.get_unique_constraints(table)),
            "checks": by_name(inspector.get_check_constraints(table)),
            "indexes": [
                {**index, "dialect_options": {k: str(v) for k, v in index.get("dialect_options", {}).items()}}
                for index in by_name(inspector.get_indexes(table))
            ],
        }
        for table in sorted(inspector.get_table_names())
        if table != "alembic_version"
    }


async def test_the_migrated_schema_is_the_schema_of_the_tables(new_database: Callable[[], Awaitable[str]]) -> None:
    migrated_url, made_url = await new_database(), await new_database()
    store = Store(migrated_url)
    await store.open()
    await store.close()
    migrated, made = make_engine(read_url(migrated_url)), make_engine(read_url(made_url))
    async with made.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        expected = await connection.run_sync(describe)
    async with migrated.begin() as connection:
        found = await connection.run_sync(describe)
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), Base.metadata)
        )
    await made.dispose()
    await migrated.dispose()
    assert found == expected
    assert set(found) == set(Base.metadata.tables)
    assert differences == []


async def test_every_migration_can_be_taken_back(database_url: str) -> None:
    store = Store(database_url)
    await store.open()
    await store.close()
    engine = make_engine(read_url(database_url))
    async with engine.begin() as connection:
        await connection.run_sync(lambda sync: schema.run_alembic(sync, "downgrade", "base"))
        assert await connection.run_sync(describe) == {}
    await engine.dispose()


async def test_a_second_start_keeps_what_is_there_and_does_not_migrate(
    store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App(app_id="app-1", name="a", scopes=(), created_at=datetime(2026, 2, 5, tzinfo=UTC))
    async with store.transaction() as tx:
        await tx.apps.add(app)
    await store.close()

    def refuse(*_: object) -> None:
        raise AssertionError("there is nothing to migrate")

    monkeypatch.setattr(schema, "run_alembic", refuse)
    again = Store(database_url)
    await again.open()
    async with again.reading() as tx:
        assert await tx.apps.get("app-1") == app
    await again.close()


async def test_two_servers_may_start_at_once(database_url: str) -> None:
    stores = [Store(database_url) for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    for store in stores:
        await store.close()


async def test_a_database_of_a_newer_version_is_refused(store: Store, database_url: str) -> None:
    engine = make_engine(read_url(database_url))
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await engine.dispose()
    with pytest.raises(Failed, match=r"schema 9999.*start the newer version"):
        await Store(database_url).open()


async def test_a_migration_that_fails_leaves_nothing(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run_alembic = schema.run_alembic

    def run_and_fail(connection: Connection, direction: str, revision: str) -> None:
        run_alembic(connection, direction, revision)
        connection.execute(text("SELECT * FROM there_is_no_such_table"))

    monkeypatch.setattr(schema, "run_alembic", run_and_fail)
    with pytest.raises(Failed):
        await Store(database_url).open()
    engine = make_engine(read_url(database_url))
    async with engine.begin() as connection:
        assert await connection.run_sync(lambda sync: inspect(sync).get_table_names()) == []
    await engine.dispose()


def test_the_newest_migration_is_the_one_that_a_start_looks_for() -> None:
    config = Config()
    config.set_main_option("script_location", schema.MIGRATIONS)
    assert ScriptDirectory.from_config(config).get_heads() == [schema.HEAD]
