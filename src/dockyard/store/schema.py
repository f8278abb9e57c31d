"""Brings a database's schema up to date at start."""

import logging

from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine

from dockyard.errors import Failed
from dockyard.store.failures import translated
from dockyard.store.locks import lock_writers

MIGRATIONS = "dockyard.store:migrations"
HEAD = "0005"  # the newest migration, as a number of four digits; a test compares it with the files

logger = logging.getLogger(__name__)


async def ensure_schema(engine: AsyncEngine) -> None:
    """Run the migrations that the database lacks, all in one transaction. Two servers may start at once."""
    with translated():
        async with engine.begin() as connection:
            await lock_writers(connection)
            await connection.run_sync(_migrate)


def run_alembic(connection: Connection, direction: str, revision: str) -> None:
    """`upgrade` or `downgrade` to `revision`, in the connection's transaction."""
    # Imported only when there is something to do: it costs a start 0.2 s and 9 MiB.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", MIGRATIONS)
    config.attributes["connection"] = connection
    {"upgrade": command.upgrade, "downgrade": command.downgrade}[direction](config, revision)


def _migrate(connection: Connection) -> None:
    at = _revision(connection)
    if at == HEAD:
        return
    if at is not None and at > HEAD:
        raise Failed(
            f"the database is at schema {at}, which this version of Dockyard (schema {HEAD}) does not know; "
            "start the newer version that wrote it, or restore a backup"
        )
    run_alembic(connection, "upgrade", HEAD)
    logger.info("database schema %s -> %s", at, HEAD)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
