"""One writer at a time, on both databases: what a transaction has read stays true until it commits."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_WRITERS = 0x646F636B  # "dock", the number of the advisory lock


async def lock_writers(connection: AsyncConnection) -> None:
    """Wait until no other transaction writes, in this process or another; held until the transaction ends.

    SQLite needs nothing more than its BEGIN IMMEDIATE.
    """
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _WRITERS})
