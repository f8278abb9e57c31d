"""Alembic's migrations of the schema; `schema.ensure_schema` runs them at start."""
