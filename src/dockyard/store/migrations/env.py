"""Alembic's entry: runs migrations on the connection, and in the transaction, that the caller gives."""

from typing import Any, Literal

from alembic import context
from sqlalchemy.types import TypeDecorator

from dockyard.store.tables import Base


def _render_item(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """A migration names plain types: Dockyard's own may change after it was written."""
    if kind == "type" and isinstance(item, TypeDecorator):
        return {"Text": "sa.Text()", "DateTime": "sa.DateTime(timezone=True)", "JSON": "sa.JSON()"}[
            type(item.impl_instance).__name__
        ]
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,  # both databases roll tables back; Alembic assumes that SQLite does not
    render_as_batch=True,
    render_item=_render_item,
)
with context.begin_transaction():
    context.run_migrations()
