"""The database: SQLite by default, PostgreSQL by URL. Repositories take and return domain entities, never rows."""
