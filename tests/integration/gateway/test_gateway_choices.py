"""Several replies to one prompt: each a row of its own on some replica, one request to the client."""

import asyncio
from typing import Any

import msgspec
import pytest
from tests.integration.gateway_rig import SHIP, Loads, Rig, events_of, rigged
from tests.integration.replica_double import text_of

from dockyard.domain.autoscaling import Demand

ASK: dict[str, Any] = {"model": "Ship 1", "messages": [{"role": "user", "content": "say it"}], "n": 3}
STREAM: dict[str, Any] = {**ASK, "stream": True, "stream_options": {"include_usage": True}}
TEXT: dict[str, Any] = {"model": "Ship 1", "prompt": ["a", "b c"], "n": 2}
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
# The prompt counts once, each reply by itself, as OpenAI counts them.
USAGE = {"prompt_tokens": 2, "completion_tokens": 24, "total_tokens": 26}


async def test_choices_of_a_chat(rig: Rig) -> None:
    double = await rig.double()
    rig.publish()
    reply = (await rig.http().post(CHAT, json={**ASK, "seed": 5})).json()
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2]
    assert {choice["message"]["content"] for choice in reply["choices"]} == {text_of(8)}
    assert reply["usage"] == USAGE
    assert sorted(asked.seed or 0 for asked in double.requests) == [5, 6, 7]
    assert len({asked.id for asked in double.requests}) == 3
    assert rig.metric("dockyard_prompt_tokens_total", deployment="Ship 1") == 2
    assert rig.metric("dockyard_completion_tokens_total", deployment="Ship 1") == 24
    assert rig.metric("dockyard_requests_total", deployment="Ship 1", status="200") == 1


async def test_choices_of_several_prompts(rig: Rig) -> None:
    await rig.double()
    rig.publish()
    reply = (await rig.http().post(COMPLETIONS, json=TEXT)).json()
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2, 3]
    assert reply["usage"] == {"prompt_tokens": 3, "completion_tokens": 32, "total_tokens": 35}


async def test_choices_streamed_in_turns(rig: Rig) -> None:
    double = await rig.double()
    rig.publish()
    double.gate_each = asyncio.Semaphore(6)
    task = asyncio.create_task(rig.http().post(CHAT, json=STREAM))
    await double.gated.wait()
    for _ in range(30):
        double.gate_each.release()
    texts, finishes, usage, turns = read((await task).text)
    assert texts == dict.fromkeys(range(3), text_of(8))
    assert finishes == dict.fromkeys(range(3), "stop")
    assert usage == USAGE
    assert turns > 3


@pytest.mark.parametrize("event", [0, 3, 8])
async def test_a_broken_replica_costs_no_choice_a_word(rig: Rig, event: int) -> None:
    first, second = await rig.double(), await rig.double()
    rig.publish()
    first.break_after, second.break_after = event, event
    texts, finishes, usage, _ = read((await rig.http().post(CHAT, json=STREAM)).text)
    assert texts == dict.fromkeys(range(3), text_of(8))
    assert finishes == dict.fromkeys(range(3), "stop")
    assert usage == USAGE
    assert rig.metric("dockyard_failovers_total", deployment="Ship 1")


async def test_each_row_is_counted_and_has_a_place_of_its_own(tmp_path: Any) -> None:
    loads = Loads()
    async with rigged(tmp_path, on_load=loads) as rig:
        double = await rig.double(capacity=2)
        rig.publish()
        double.hold = asyncio.Event()
        task = asyncio.create_task(rig.http().post(CHAT, json=ASK))
        await loads.until(queued=1, in_flight=2)
        assert rig.gateway.load(SHIP.deployment_id) == Demand(1, 2)
        double.hold.set()
        assert (await task).status_code == 200
        assert double.most_running == 2
        assert loads.told[-1] == Demand(0, 0)


async def test_rows_that_find_no_room_in_the_queue_refuse_all(tmp_path: Any) -> None:
    loads = Loads()
    async with rigged(tmp_path, queue_limit=1, on_load=loads) as rig:
        double = await rig.double(capacity=1)
        rig.publish()
        for body in (ASK, STREAM):
            reply = await rig.http().post(CHAT, json=body)
            assert (reply.status_code, reply.json()["error"]["code"]) == (429, "QUEUE_FULL")
            await loads.until(queued=0, in_flight=0)
        assert (await rig.http().post(CHAT, json={**ASK, "n": 2})).status_code == 200
        assert double.most_running == 1


async def test_a_client_that_leaves_frees_every_place(tmp_path: Any) -> None:
    loads = Loads()
    async with rigged(tmp_path, on_load=loads) as rig:
        double = await rig.double(capacity=2)
        rig.publish()
        double.gate_each = asyncio.Semaphore(2)
        client = rig.http()
        async with client.stream("POST", CHAT, json=STREAM) as reply:
            assert reply.status_code == 200
            await double.gated.wait()
            await loads.until(queued=1, in_flight=2)
        await loads.until(queued=0, in_flight=0)
        await double.idle.wait()
        assert double.aborted == 2
        assert len(double.requests) == 2


async def test_a_row_that_fails_ends_all(rig: Rig) -> None:
    double = await rig.double()
    rig.publish()
    double.fail_after, double.fail_times = 2, 9
    reply = await rig.http().post(CHAT, json=ASK)
    assert (reply.status_code, reply.json()["error"]["code"]) == (500, "ENGINE_FAILED")
    assert rig.gateway.load(SHIP.deployment_id) == Demand(0, 0)


def read(stream: str) -> tuple[dict[int, str], dict[int, str], Any, int]:
    """Texts and finishes by index, the usage, and how often another choice had the word."""
    *events, last = events_of(stream)
    assert last == "[DONE]"
    texts: dict[int, str] = {}
    finishes: dict[int, str] = {}
    usage, turns, speaker = None, 0, None
    for event in map(msgspec.json.decode, events):
        usage = event["usage"] or usage
        for choice in event["choices"]:
            index = choice["index"]
            assert index not in finishes
            if choice["delta"].get("role"):
                assert index not in texts
                texts[index] = ""
            turns += index != speaker
            speaker = index
            texts[index] += choice["delta"].get("content", "")
            if choice["finish_reason"]:
                finishes[index] = choice["finish_reason"]
    return texts, finishes, usage, turns
