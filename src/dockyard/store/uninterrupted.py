"""Keeps a cancellation from cutting a conversation with the database in two."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` to its end, even if the caller is cancelled meanwhile; the cancellation is raised then.

    aiosqlite runs statements in a thread that nobody can stop. When the caller leaves, SQLAlchemy gives the connection
    up in mid-statement, and one that had just begun a transaction was seen to keep the write lock for good. Waiting
    is short instead: a statement takes milliseconds, and what waits for locks or the network is bounded in `engine.py`.
    """
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # seen; the cancellation is what the caller gets
        raise cancelled
    return task.result()
