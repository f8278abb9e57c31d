"""What a request held is freed with its last use; nothing waits in a cycle for the garbage collector."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from dockyard.gateway.connection import Connection
from dockyard.gateway.exchange import Guard


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Client:
    """One that stays: tells when it is watched."""

    def __init__(self) -> None:
        self.watched = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        self.watched.set()
        await asyncio.Event().wait()
        raise AssertionError("nobody leaves")


async def test_a_request_whose_client_was_watched() -> None:
    freed = weakref.ref(await _answered())
    assert freed() is None


async def _answered() -> Client:
    client = Client()
    with Guard(client.receive) as guard:
        guard.answer_by(asyncio.get_running_loop().time() + 60)
        await client.watched.wait()
    watchers = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.wait(watchers)
    return client


async def test_a_connection_that_is_lost() -> None:
    connection = Connection()
    freed = weakref.ref(connection)
    connection.connection_made(asyncio.Transport())
    connection.connection_lost(None)
    del connection
    assert freed() is None
