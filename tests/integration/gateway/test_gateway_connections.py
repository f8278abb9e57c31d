"""The gateway's side of the wire to a replica: kept connections, TCP, replies broken, unasked for, or large."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from tests.integration.gateway_rig import Rig
from tests.integration.replica_double import TOKEN, ReplicaDouble, serve, text_of

from dockyard.gateway.connection import HIGH_WATER_BYTES, ConnectionBroken
from dockyard.gateway.upstream import Upstream, Upstreams
from dockyard.protocols.fleet import ReplicaAddress

ASK: dict[str, Any] = {"model": "Ship 1", "messages": [{"role": "user", "content": "go"}]}
FINE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Scripted:
    """A server on a free port that answers each request on a connection with the next bytes of a script."""

    def __init__(self) -> None:
        self.script: list[bytes | None] = []  # None closes the connection
        self.connections = 0
        self.requests: list[bytes] = []
        self.port = 0
        self.closed = asyncio.Event()

    @property
    def upstream(self) -> Upstream:
        return Upstream(ReplicaAddress(token=TOKEN, url=f"http://127.0.0.1:{self.port}/base/"))

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while self.script:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
                self.requests.append(head + await reader.readexactly(length))
                answer = self.script.pop(0)
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the gateway closed it
        finally:
            writer.close()
            self.closed.set()


@pytest_asyncio.fixture
async def scripted() -> AsyncIterator[Scripted]:
    handler = Scripted()
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    handler.port = server.sockets[0].getsockname()[1]
    async with server:
        yield handler


@asynccontextmanager
async def sent(upstream: Upstream) -> AsyncIterator[Callable[[], Any]]:
    connection = await upstream.generate(b"{}")
    try:
        yield connection.read
    finally:
        upstream.give_back(connection)


async def test_a_connection_is_kept(scripted: Scripted) -> None:
    scripted.script = [FINE] * 3 + [None]
    upstream = scripted.upstream
    for _ in range(3):
        async with sent(upstream) as read:
            assert await read() == b"ok"
            assert await read() == b""
    assert scripted.connections == 1
    assert scripted.requests[0].startswith(b"POST /base/generate HTTP/1.1\r\n")
    assert b"x-replica-token: " + TOKEN.encode() in scripted.requests[0]
    upstream.close()


async def test_a_reply_that_is_not_read_to_its_end_costs_the_connection(scripted: Scripted) -> None:
    scripted.script = [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", FINE]
    upstream = scripted.upstream
    async with sent(upstream) as read:
        assert await read() == b"ok"
    async with sent(upstream) as read:
        assert await read() == b"ok"
    assert scripted.connections == 2
    upstream.close()


async def test_a_kept_connection_that_was_closed_is_told_from_a_break(scripted: Scripted) -> None:
    scripted.script = [None]
    with pytest.raises(ConnectionBroken) as fresh:
        await scripted.upstream.generate(b"{}")
    assert not fresh.value.unused
    scripted.script = [FINE, None]
    upstream = scripted.upstream
    async with sent(upstream) as read:
        while await read():
            pass
    with pytest.raises(ConnectionBroken) as kept:
        await upstream.generate(b"{}")
    assert kept.value.unused


@pytest.mark.parametrize(
    "answer", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"]
)
async def test_what_is_no_http_is_a_break(scripted: Scripted, answer: bytes) -> None:
    scripted.script = [answer]
    with pytest.raises(ConnectionBroken):
        async with sent(scripted.upstream) as read:
            await read()


async def test_a_reply_that_nobody_asked_for_is_never_taken_for_the_next_one(scripted: Scripted) -> None:
    scripted.script = [FINE + FINE, FINE]
    upstream = scripted.upstream
    for _ in range(2):
        async with sent(upstream) as read:
            assert await read() == b"ok"
    assert scripted.connections == 2
    upstream.close()


async def test_a_large_reply_waits_for_its_reader(scripted: Scripted) -> None:
    size = HIGH_WATER_BYTES * 8
    scripted.script = [b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size]
    got = 0
    async with sent(scripted.upstream) as read:
        while part := await read():
            assert len(part) < HIGH_WATER_BYTES * 3
            got += len(part)
    assert got == size


async def test_nobody_listens() -> None:
    with pytest.raises(FileNotFoundError):
        await Upstream(ReplicaAddress(token=TOKEN, socket="/nowhere/s")).generate(b"{}")
    with pytest.raises(ValueError, match="socket or a URL"):
        Upstream(ReplicaAddress(token=TOKEN))


async def test_a_replica_over_tcp(rig: Rig) -> None:
    double = ReplicaDouble()
    async with serve(double) as served:
        rig.add("far", ReplicaAddress(token=TOKEN, url=f"http://127.0.0.1:{served.port}"))
        rig.publish()
        reply = await rig.http().post("/v1/chat/completions", json=ASK)
        assert reply.json()["choices"][0]["message"]["content"] == text_of(8)


async def test_connections_close_once_their_replica_has_left_the_route_and_is_idle(scripted: Scripted) -> None:
    scripted.script = [FINE, FINE, None]
    address = scripted.upstream.address
    upstreams = Upstreams()
    upstreams.set_routed("dp-1", frozenset({address}))
    for leaves in (False, True):
        upstream = upstreams.acquire(address)
        async with sent(upstream) as read:
            if leaves:
                upstreams.set_routed("dp-1", frozenset())
            assert await read() == b"ok"
        assert not scripted.closed.is_set()
        upstreams.release(upstream)
    await scripted.closed.wait()
    assert scripted.connections == 1
