"""Keeps a cancellation from cutting a conversation with the database in two."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` to its end, even if the caller is cancelled meanwhile; the cancellation is raised then.

    aiosqlite runs statements in a thread that nobody can stop. If the caller left, a BEGIN IMMEDIATE could take the
    write lock after its connection was given up, and hold it for good. Waiting instead is short: statements take
    milliseconds, and the wait for locks and for the network is bounded (see `engine.py`).
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
