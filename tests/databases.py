"""Migrated SQLite databases, for tests that are not about migrating: it would cost each of them a tenth of a second."""

import functools
import tempfile
from pathlib import Path

from sqlalchemy import create_engine

from dockyard.store.schema import HEAD, run_alembic


def migrated_sqlite(path: Path) -> str:
    """Makes a database of the present schema, empty and closed, at `path`; returns its URL."""
    path.write_bytes(_migrated())
    return f"sqlite+aiosqlite:///{path}"


@functools.cache
def _migrated() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "migrated.db"
        engine = create_engine(f"sqlite:///{path}")
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")  # a property of the file; the store asks for it
            run_alembic(connection, "upgrade", HEAD)
            connection.commit()
        engine.dispose()
        return path.read_bytes()
