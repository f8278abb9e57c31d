"""Writes the next migration from what the tables changed: `python -m dockyard.store.migrations "what changes"`.

Read what it wrote, then set `schema.HEAD` to its number.
"""

import sys
import tempfile

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from dockyard.store.schema import HEAD, MIGRATIONS, run_alembic


def write(message: str) -> None:
    """Compare the tables with a database at `HEAD`, and write the difference as the migration after it."""
    config = Config()
    config.set_main_option("script_location", MIGRATIONS)
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    with tempfile.TemporaryDirectory() as folder:
        engine = create_engine(f"sqlite:///{folder}/head.db")
        with engine.begin() as connection:
            run_alembic(connection, "upgrade", HEAD)
            config.attributes["connection"] = connection
            command.revision(config, message, autogenerate=True, rev_id=f"{int(HEAD) + 1:04}")
        engine.dispose()


if __name__ == "__main__":
    write(sys.argv[1])
