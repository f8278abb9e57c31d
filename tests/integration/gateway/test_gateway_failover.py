"""A replica that breaks costs nobody a token: the request goes on elsewhere from the ids it has."""

import asyncio
from typing import Any

import httpx
import msgspec
import pytest
from tests.integration.gateway_rig import SHIP, Rig, events_of
from tests.integration.replica_double import ReplicaDouble, served_double, text_of

from dockyard.protocols.generation import ReplicaError

ASK: dict[str, Any] = {"model": "Ship 1", "messages": [{"role": "user", "content": "go"}]}
STREAM: dict[str, Any] = {**ASK, "stream": True}


async def streamed(client: httpx.AsyncClient, body: dict[str, Any] = STREAM) -> tuple[str, list[Any]]:
    """The text, and the decoded events but the last `[DONE]`."""
    reply = await client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200
    *events, last = events_of(reply.text)
    assert last == "[DONE]"
    decoded = [msgspec.json.decode(event) for event in events]
    return "".join(event["choices"][0]["delta"].get("content", "") for event in decoded), decoded


@pytest.mark.parametrize("event", range(9))
async def test_a_stream_goes_on_after_a_break_at_any_event(rig: Rig, event: int) -> None:
    first, second = await rig.double(), await rig.double()
    rig.publish()
    first.break_after = second.break_after = event  # whoever gets it, breaks
    text, events = await streamed(rig.http())
    assert text == text_of(8)
    assert [one["choices"][0]["delta"].get("role") for one in events].count("assistant") == 1
    assert len({one["id"] for one in events}) == 1
    assert rig.metric("dockyard_failovers_total", deployment="Ship 1")


@pytest.mark.parametrize("event", range(9))
async def test_a_whole_reply_is_whole_after_a_break(rig: Rig, event: int) -> None:
    first, second = await rig.double(), await rig.double()
    rig.publish()
    first.break_after = event
    reply = (await rig.http().post("/v1/chat/completions", json=ASK)).json()
    assert reply["choices"][0]["message"]["content"] == text_of(8)
    assert reply["usage"] == {"prompt_tokens": 1, "completion_tokens": 8, "total_tokens": 9}
    resumed = [asked.resume for double in (first, second) for asked in double.requests if asked.resume]
    assert all(ids == list(range(len(ids))) for ids in resumed)


async def test_a_single_replica_that_breaks_is_tried_again(rig: Rig) -> None:
    double = await rig.double()
    rig.publish()
    double.break_after = 3
    text, _ = await streamed(rig.http())
    assert text == text_of(8)
    assert len(double.requests) == 2


async def test_a_reply_that_ends_without_a_finish_is_a_break(rig: Rig) -> None:
    double = await rig.double()
    rig.publish()
    double.end_after = 3
    text, _ = await streamed(rig.http())
    assert text == text_of(8)
    assert double.requests[1].resume == [0, 1, 2]


async def test_a_replica_that_is_not_ready_is_left_for_another(rig: Rig) -> None:
    first, second = await rig.double(), await rig.double()
    rig.publish()
    for double in (first, second):
        double.refuse = (503, ReplicaError("unavailable", "DRAINING", "going"))
    first.refuse_times = 1_000
    client = rig.http()
    for _ in range(6):
        assert (await client.post("/v1/chat/completions", json=ASK)).status_code == 200
    assert len(second.requests) == 6
    assert len(first.requests) == 1  # then it was put aside


async def test_a_replica_that_is_gone_is_left_for_another(rig: Rig) -> None:
    await rig.double()
    rig.add("gone", rig.replicas[0].address.__class__(token="x", socket="/nonexistent/socket"))
    rig.publish()
    client = rig.http()
    for _ in range(4):
        assert (await client.post("/v1/chat/completions", json=ASK)).status_code == 200


async def test_the_only_replica_dies_and_another_one_is_published(rig: Rig, tmp_path: Any) -> None:
    """The request waits, and goes on where it was."""
    async with served_double(tmp_path, "dying") as (dying, address):
        rig.add("dying", address)
        rig.publish()
        dying.gate_each = asyncio.Semaphore(3)
        task = asyncio.create_task(streamed(rig.http()))
        await dying.gated.wait()
    rig.replicas.clear()
    rig.publish()
    assert rig.gateway.load(SHIP.deployment_id).in_flight + rig.gateway.load(SHIP.deployment_id).queued == 1
    double = await rig.double()
    rig.publish()
    text, _ = await task
    assert text == text_of(8)
    assert double.requests[0].resume == list(range(len(double.requests[0].resume)))


async def test_an_engine_error_is_retried_twice(rig: Rig) -> None:
    first, second = await rig.double(), await rig.double()
    rig.publish()
    _fail(first, second, after=2, times=1)
    text, _ = await streamed(rig.http())
    assert text == text_of(8)
    assert len(first.requests) + len(second.requests) == 3


async def test_a_third_engine_error_ends_a_stream_with_an_error_event(rig: Rig) -> None:
    first, second = await rig.double(), await rig.double()
    rig.publish()
    _fail(first, second, after=2, times=9)
    reply = await rig.http().post("/v1/chat/completions", json=STREAM)
    last = list(events_of(reply.text))[-1]
    error = msgspec.json.decode(last)["error"]
    assert error["code"] == "ENGINE_FAILED"
    assert error["type"] == "server_error"
    assert rig.metric("dockyard_requests_total", deployment="Ship 1", status="500") == 1


async def test_a_third_engine_error_is_a_500_when_nothing_has_been_sent(rig: Rig) -> None:
    double = await rig.double()
    rig.publish()
    _fail(double, after=2, times=9)
    reply = await rig.http().post("/v1/chat/completions", json=ASK)
    assert reply.status_code == 500
    assert reply.json()["error"]["code"] == "ENGINE_FAILED"
    assert "it hurt" not in reply.text


async def test_a_request_that_breaks_every_replica_is_given_up(rig: Rig) -> None:
    double = await rig.double()
    rig.publish()
    double.break_after, double.break_always = 0, True
    reply = await rig.http().post("/v1/chat/completions", json=ASK)
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "ENGINE_CRASHED"
    assert len(double.requests) == 5


async def test_what_the_replica_finds_wrong_is_passed_on(rig: Rig) -> None:
    double = await rig.double()
    rig.publish()
    double.refuse = (400, ReplicaError("invalid", "CONTEXT_LENGTH_EXCEEDED", "9 tokens exceed 8", "messages"))
    double.refuse_times = 1
    reply = await rig.http().post("/v1/chat/completions", json=STREAM)
    assert reply.status_code == 400
    assert reply.json()["error"] == {
        "message": "9 tokens exceed 8",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "CONTEXT_LENGTH_EXCEEDED",
    }
    assert (await rig.http().post("/v1/chat/completions", json=ASK)).status_code == 200


def _fail(*doubles: ReplicaDouble, after: int, times: int) -> None:
    for double in doubles:
        double.fail_after, double.fail_times = after, times
