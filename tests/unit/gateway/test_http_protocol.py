"""What reaches the transport, and when."""

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from dockyard.gateway import http_protocol
from dockyard.gateway.http_protocol import MOST_BYTES, HttpProtocol

REQUEST = b"POST /v1/x HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"


class Recorder(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def connected(app: Any) -> tuple[HttpProtocol, Recorder]:
    config = uvicorn.Config(app, http=HttpProtocol, lifespan="off", log_config=None, access_log=False)
    config.load()
    transport = Recorder()
    protocol = HttpProtocol(config, ServerState(), {}, asyncio.get_running_loop())
    protocol.connection_made(transport)
    return protocol, transport


async def answered(*bodies: bytes, step: bool = False, request: bytes = REQUEST) -> Recorder:
    """The transport after a reply in these parts; `step`: the loop goes round between them."""
    done = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for body in bodies:
            await send({"type": "http.response.body", "body": body, "more_body": True})
            if step:
                await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b""})
        done.set()

    protocol, transport = connected(app)
    protocol.data_received(request)
    await done.wait()
    await asyncio.sleep(0)
    protocol.connection_lost(None)
    return transport


async def test_a_reply_is_one_write() -> None:
    transport = await answered(b"one", b"two")
    assert len(transport.writes) == 1
    assert transport.writes[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert transport.writes[0].endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")


async def test_a_stream_is_written_as_it_comes() -> None:
    transport = await answered(b"one", b"two", step=True)
    assert [part in written for part, written in zip((b"one", b"two", b"0\r\n"), transport.writes, strict=True)]


async def test_much_at_once_reaches_the_transport_at_once() -> None:
    """Or it could not tell that the client is too slow for it."""
    transport = await answered(*[b"x" * 1000] * 200)
    assert all(len(written) < MOST_BYTES + 2000 for written in transport.writes)
    assert sum(written.count(b"x" * 1000) for written in transport.writes) == 200


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
async def test_what_was_written_goes_out_before_the_connection_closes(version: bytes) -> None:
    request = REQUEST.replace(b"HTTP/1.1", version).replace(b"host: x", b"host: x\r\nconnection: close")
    transport = await answered(b"one", request=request)
    assert transport.closed
    assert len(transport.writes) == 1


class Teller:
    """An application that answers when it may, and a way to wait until it has."""

    def __init__(self) -> None:
        self.may, self.done = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.may.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"told"})
        self.done.set()

    async def answers(self) -> None:
        self.done.clear()
        self.may.set()
        await self.done.wait()
        await asyncio.sleep(0)


async def test_a_request_that_crosses_the_end_is_answered_and_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "LINGER_S", 60)
    teller = Teller()
    protocol, transport = connected(teller)
    protocol.data_received(REQUEST)
    await teller.answers()
    protocol.shutdown()
    assert not transport.closed
    protocol.data_received(REQUEST)
    await teller.answers()
    assert b"connection: close" in transport.writes[-1]
    assert b"connection: close" not in transport.writes[0]
    assert transport.closed


async def test_what_runs_at_the_end_is_answered_and_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "LINGER_S", 0)
    teller = Teller()
    protocol, transport = connected(teller)
    protocol.data_received(REQUEST)
    protocol.shutdown()
    await after_the_linger()
    assert not transport.closed
    await teller.answers()
    assert transport.closed
    assert b"connection: close" in transport.writes[-1]


@pytest.mark.parametrize("sent", [b"", REQUEST[:20]], ids=["nothing", "half a head"])
async def test_who_sends_no_request_at_the_end_is_waited_for_no_longer(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "LINGER_S", 0)
    protocol, transport = connected(Teller())
    if sent:
        protocol.data_received(sent)
    protocol.shutdown()
    protocol.shutdown()
    await after_the_linger()
    assert transport.closed


async def after_the_linger() -> None:
    """Timers of no length fire in the order in which they were set."""
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(0, passed.set)
    await passed.wait()
