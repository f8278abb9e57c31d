"""Turns of the replicas that load on one machine: more of them at once than cores are free only make all of them late.

A turn is a lock on a file, so it ends with its process, however that ends.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

PATIENCE_S = 1.0  # small models take turns; one that loads for minutes must not keep anybody waiting so long


@asynccontextmanager
async def one_turn(folder: Path, turns: int) -> AsyncIterator[None]:
    """Keep one of `turns` turns, waited for no longer than `PATIENCE_S`; 0: there is none to wait for."""
    descriptor = await _turn(folder, turns) if turns > 0 else None
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


async def _turn(folder: Path, turns: int) -> int | None:
    descriptor = _free_turn(folder, turns)
    if descriptor is not None:
        return descriptor
    waiting = asyncio.ensure_future(asyncio.to_thread(_next_turn, folder, os.getpid() % turns))
    done, _ = await asyncio.wait({waiting}, timeout=PATIENCE_S)
    if done:
        return waiting.result()
    waiting.add_done_callback(lambda late: os.close(late.result()))  # the thread cannot be called back
    return None


def _free_turn(folder: Path, turns: int) -> int | None:
    for number in range(turns):
        descriptor = _open(folder, number)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        else:
            return descriptor
    return None


def _next_turn(folder: Path, number: int) -> int:
    """Blocks."""
    descriptor = _open(folder, number)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _open(folder: Path, number: int) -> int:
    return os.open(folder / f"turn-{number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
