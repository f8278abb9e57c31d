"""Requests that wait: for a place, for a replica, for their time to run out, or no longer because the client left."""

import asyncio
from typing import Any

import httpx
import msgspec
import pytest
from tests.integration.gateway_rig import SHIP, Loads, Rig, events_of, rigged

from dockyard.domain.autoscaling import Demand
from dockyard.errors import Reason, Unavailable

ASK: dict[str, Any] = {"model": "Ship 1", "messages": [{"role": "user", "content": "go"}]}
STREAM: dict[str, Any] = {**ASK, "stream": True}
CHAT = "/v1/chat/completions"
ID = SHIP.deployment_id


async def test_a_full_queue_is_a_429_with_retry_after(tmp_path: Any) -> None:
    loads = Loads()
    async with rigged(tmp_path, queue_limit=2, on_load=loads) as rig:
        double = await rig.double(capacity=1)
        rig.publish()
        double.hold = asyncio.Event()
        client = rig.http()
        tasks = [asyncio.create_task(client.post(CHAT, json=ASK)) for _ in range(3)]
        await loads.until(queued=2, in_flight=1)
        reply = await client.post(CHAT, json=ASK)
        assert reply.status_code == 429
        assert reply.json()["error"]["type"] == "rate_limit_error"
        assert int(reply.headers["retry-after"]) >= 1
        double.hold.set()
        assert [(await task).status_code for task in tasks] == [200, 200, 200]
        assert loads.told[-1] == Demand(0, 0)
        assert double.most_running == 1


async def test_requests_wait_for_the_first_replica(tmp_path: Any) -> None:
    loads = Loads()
    async with rigged(tmp_path, on_load=loads) as rig:
        rig.publish()
        task = asyncio.create_task(rig.http().post(CHAT, json=ASK))
        await loads.until(queued=1, in_flight=0)
        assert rig.metric("dockyard_requests_queued", deployment="Ship 1") == 1
        await rig.double()
        rig.publish()
        assert (await task).status_code == 200


async def test_undeploying_refuses_those_who_wait(tmp_path: Any) -> None:
    loads = Loads()
    async with rigged(tmp_path, on_load=loads) as rig:
        rig.publish()
        task = asyncio.create_task(rig.http().post(CHAT, json=ASK))
        await loads.until(queued=1, in_flight=0)
        rig.gateway.withdraw(ID)
        reply = await task
        assert reply.status_code == 404
        assert reply.json()["error"]["code"] == "model_not_found"
        assert (await rig.http().post(CHAT, json=ASK)).status_code == 404


async def test_those_who_wait_for_a_start_that_fails_are_told_why(tmp_path: Any) -> None:
    loads = Loads()
    async with rigged(tmp_path, on_load=loads) as rig:
        rig.publish()
        task = asyncio.create_task(rig.http().post(CHAT, json=ASK))
        await loads.until(queued=1, in_flight=0)
        why = "the first replica did not start: it ran out of memory"
        rig.gateway.withdraw(ID, Unavailable(why, reason=Reason.OUT_OF_MEMORY, retry_after_s=30))
        reply = await task
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "30")
        assert reply.json()["error"] == {"message": why, "type": "server_error", "param": None, "code": "OUT_OF_MEMORY"}


async def test_who_never_got_a_place_is_told_so_when_the_time_is_over(rig: Rig) -> None:
    rig.publish(endpoint_timeout_s=0)
    reply = await rig.http().post(CHAT, json=ASK)
    assert reply.status_code == 504
    assert "no replica had a place" in reply.json()["error"]["message"]


async def test_undeploying_leaves_what_runs_and_drained_tells_when_it_ended(rig: Rig) -> None:
    double = await rig.double()
    rig.publish()
    double.hold = asyncio.Event()
    task = asyncio.create_task(rig.http().post(CHAT, json=ASK))
    await double.started.wait()
    rig.gateway.withdraw(ID)
    assert rig.gateway.open_requests("r0") == 1
    drained = asyncio.create_task(rig.gateway.drained("r0"))
    await asyncio.sleep(0)
    assert not drained.done()
    double.hold.set()
    assert (await task).status_code == 200
    await drained
    assert rig.gateway.open_requests("r0") == 0


@pytest.mark.parametrize("accepted", [True, False])
async def test_a_client_that_leaves_aborts_its_request(tmp_path: Any, accepted: bool) -> None:
    loads = Loads()
    async with rigged(tmp_path, on_load=loads) as rig:
        double = await rig.double(capacity=1)
        rig.publish()
        double.hold = asyncio.Event()
        double.hold_before_accepting = not accepted
        client = rig.http()
        running = asyncio.create_task(client.post(CHAT, json=STREAM))
        await double.started.wait()
        waiting = asyncio.create_task(client.post(CHAT, json=ASK))
        await loads.until(queued=1, in_flight=1)
        waiting.cancel()
        await loads.until(queued=0, in_flight=1)
        running.cancel()
        await loads.until(queued=0, in_flight=0)
        await double.idle.wait()
        assert double.aborted == 1
        assert len(double.requests) == 1
        assert rig.metric("dockyard_requests_total", deployment="Ship 1", status="499") == 2
        double.hold.set()
        assert (await rig.http().post(CHAT, json=ASK)).status_code == 200


async def test_the_endpoint_timeout_is_a_504(rig: Rig) -> None:
    double = await rig.double()
    rig.publish(endpoint_timeout_s=0)
    double.hold = asyncio.Event()
    double.hold_before_accepting = True
    reply = await rig.http().post(CHAT, json=STREAM)
    assert reply.status_code == 504
    assert reply.json()["error"]["code"] == "TIMED_OUT"
    assert "lost" not in reply.json()["error"]["message"]
    assert rig.gateway.load(ID) == Demand(0, 0)


async def test_who_lost_a_replica_and_waits_for_the_next_is_told_so(tmp_path: Any) -> None:
    """Whatever it had asked for, it is not what took so long."""
    loads = Loads()
    async with rigged(tmp_path, on_load=loads) as rig:
        double = await rig.double()
        rig.publish(endpoint_timeout_s=1)
        double.hold, double.break_after = asyncio.Event(), 3
        task = asyncio.create_task(rig.http().post(CHAT, json=ASK))
        await double.started.wait()
        rig.publish(replicas=())
        double.hold.set()
        await loads.until(queued=1, in_flight=0)
        reply = await task
        assert reply.status_code == 504
        message = reply.json()["error"]["message"]
        assert "lost its replica 1 time(s) and still waited for another one" in message
        assert "1 s" in message
        assert "fewer tokens" not in message


async def test_the_endpoint_timeout_ends_a_stream_with_an_error_event(rig: Rig) -> None:
    double = await rig.double()
    rig.publish(endpoint_timeout_s=1)
    double.gate_each = asyncio.Semaphore(3)
    reply = await rig.http().post(CHAT, json=STREAM)
    assert reply.status_code == 200
    *events, last = events_of(reply.text)
    assert msgspec.json.decode(last)["error"]["code"] == "TIMED_OUT"
    assert len(events) >= 2
    await double.idle.wait()
    assert double.aborted == 1


async def test_nothing_is_sent_before_the_replica_has_accepted(rig: Rig) -> None:
    """So that whatever goes wrong until then has its own status."""
    double = await rig.double()
    rig.publish()
    double.hold = asyncio.Event()
    double.hold_before_accepting = True
    client = rig.http()
    async with asyncio.TaskGroup() as group:
        opened = group.create_task(_first_event(client))
        await double.started.wait()
        assert not opened.done()
        double.hold.set()
    assert '"role":"assistant"' in opened.result()


async def test_closing_refuses_who_waits_and_who_comes(tmp_path: Any) -> None:
    loads = Loads()
    async with rigged(tmp_path, on_load=loads) as rig:
        rig.publish()
        client = rig.http()
        task = asyncio.create_task(client.post(CHAT, json=ASK))
        await loads.until(queued=1, in_flight=0)
        await rig.gateway.close()
        reply = await task
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "DRAINING")
        assert reply.headers["retry-after"]
        assert (await client.post(CHAT, json=ASK)).status_code == 503


async def _first_event(client: httpx.AsyncClient) -> str:
    async with client.stream("POST", CHAT, json=STREAM) as reply:
        return await anext(reply.aiter_text())
