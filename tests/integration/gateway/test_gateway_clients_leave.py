"""Clients on sockets of their own: those that leave, at any point; one that is slow; one among a flood of others."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.integration.gateway_rig import ADMIN, OF_SHIP, Loads, Rig, rigged
from tests.integration.replica_double import ReplicaDouble

from dockyard.domain.autoscaling import Demand
from dockyard.gateway import exchange

ASK: dict[str, Any] = {"model": "Ship 1", "messages": [{"role": "user", "content": "go"}]}
STREAM: dict[str, Any] = {**ASK, "stream": True}
CHAT = "/v1/chat/completions"
Leave = Callable[[asyncio.StreamWriter], None]


def close(writer: asyncio.StreamWriter) -> None:
    writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


ways = pytest.mark.parametrize("leave", [close, reset])


class Scene:
    """A deployment with one place, and its load."""

    def __init__(self, rig: Rig, double: ReplicaDouble, loads: Loads) -> None:
        self.rig = rig
        self.double = double
        self.loads = loads

    async def client(
        self, ask: dict[str, Any], key: str = ADMIN, sent: int | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A socket with a request on it, of whose body only `sent` bytes are there."""
        reader, writer = await asyncio.open_connection("127.0.0.1", int(self.rig.base_url.rpartition(":")[2]))
        body = msgspec.json.encode(ask)
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body[:sent])
        return reader, writer

    async def serves_on(self) -> None:
        """Nothing holds the one place."""
        self.double.hold = self.double.gate_each = None
        assert (await self.rig.http().post(CHAT, json=ASK)).status_code == 200
        assert self.loads.told[-1] == Demand(0, 0)

    def gone(self) -> float | None:
        return self.rig.metric("dockyard_requests_total", deployment="Ship 1", status="499")


@pytest.fixture
async def scene(tmp_path: Any) -> Any:
    loads = Loads()
    async with rigged(tmp_path, on_load=loads) as rig:
        double = await rig.double(capacity=1)
        rig.publish()
        yield Scene(rig, double, loads)


@ways
async def test_while_it_waits_in_the_queue(scene: Scene, leave: Leave) -> None:
    scene.double.hold = asyncio.Event()
    running = asyncio.create_task(scene.rig.http().post(CHAT, json=ASK))
    await scene.loads.until(queued=0, in_flight=1)
    _, writer = await scene.client(ASK)
    await scene.loads.until(queued=1, in_flight=1)
    leave(writer)
    await scene.loads.until(queued=0, in_flight=1)
    scene.double.hold.set()
    assert (await running).status_code == 200
    assert len(scene.double.requests) == 1
    assert scene.gone() == 1
    await scene.serves_on()


@ways
async def test_while_it_waits_for_a_replica_that_starts(scene: Scene, leave: Leave) -> None:
    scene.rig.publish(replicas=())
    _, writer = await scene.client(STREAM)
    await scene.loads.until(queued=1, in_flight=0)
    leave(writer)
    await scene.loads.until(queued=0, in_flight=0)
    scene.rig.publish()
    assert scene.double.requests == []
    await scene.serves_on()


@ways
@pytest.mark.parametrize("ask", [ASK, STREAM])
async def test_before_the_first_token(scene: Scene, leave: Leave, ask: dict[str, Any]) -> None:
    scene.double.hold = asyncio.Event()
    _, writer = await scene.client(ask)
    await scene.double.started.wait()
    leave(writer)
    await scene.double.idle.wait()  # out of the batch …
    await scene.loads.until(queued=0, in_flight=0)  # … and out of the count
    assert scene.double.aborted == 1
    assert scene.gone() == 1
    await scene.serves_on()


@ways
async def test_in_mid_stream_and_the_next_one_gets_the_place(scene: Scene, leave: Leave) -> None:
    scene.double.gate_each = asyncio.Semaphore(3)
    reader, writer = await scene.client(STREAM)
    await reader.readuntil(b"w2 ")
    waiting = asyncio.create_task(scene.rig.http().post(CHAT, json=ASK))
    await scene.loads.until(queued=1, in_flight=1)
    scene.double.gate_each = None
    leave(writer)
    assert (await waiting).status_code == 200
    assert scene.double.aborted == 1
    assert scene.loads.told[-3:] == [Demand(1, 1), Demand(0, 1), Demand(0, 0)]
    await scene.serves_on()


@ways
async def test_with_half_a_body_sent(scene: Scene, leave: Leave) -> None:
    _, writer = await scene.client(ASK, sent=20)
    await writer.drain()
    leave(writer)
    await scene.serves_on()
    assert len(scene.double.requests) == 1
    assert scene.loads.told[:2] == [Demand(0, 0), Demand(0, 1)]


async def test_a_body_that_does_not_come_is_a_408(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "BODY_S", 0.01)
    reader, writer = await scene.client(ASK, sent=20)
    reply = (await reader.read()).decode()  # to the end: the connection is closed
    writer.close()
    assert reply.startswith("HTTP/1.1 408 ")
    assert '"code":"BODY_TOO_SLOW"' in reply
    await scene.serves_on()


async def test_a_body_that_takes_its_time_is_read(scene: Scene) -> None:
    body = msgspec.json.encode(ASK)
    reader, writer = await scene.client(ASK, sent=20)
    await asyncio.sleep(2 * exchange.WATCH_AFTER_S)  # long enough to be taken for a slow one
    writer.write(body[20:])
    assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
    writer.close()


async def test_a_key_that_floods_does_not_hold_up_another(scene: Scene) -> None:
    scene.double.hold = asyncio.Event()
    clients = [await scene.client(ASK) for _ in range(20)]
    await scene.loads.until(queued=19, in_flight=1)
    other = {**ASK, "messages": [{"role": "user", "content": "other"}]}
    clients.append(await scene.client(other, key=OF_SHIP))
    await scene.loads.until(queued=20, in_flight=1)
    scene.double.hold.set()
    for reader, writer in clients:
        assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
        writer.close()
    asked = [request.messages[0]["content"] for request in scene.double.requests if request.messages]
    assert asked == ["go", "other", *["go"] * 19]
