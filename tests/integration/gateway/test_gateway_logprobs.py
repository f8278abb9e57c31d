"""Logprobs and response_format as the official client sees them: whole, streamed, and over a replica that breaks."""

import json
from typing import Any

import pytest
from tests.integration.gateway_rig import Rig, events_of
from tests.integration.replica_double import ReplicaDouble, text_of

CHAT = {"model": "Ship 1", "messages": [{"role": "user", "content": "one"}], "logprobs": True, "top_logprobs": 2}
TEXT = {"model": "Ship 1", "prompt": "one", "logprobs": 2}
TOKENS = [f"w{index} " for index in range(8)]


@pytest.fixture
async def doubles(rig: Rig) -> list[ReplicaDouble]:
    return [await rig.double(), await rig.double()]


@pytest.fixture
def able(rig: Rig, doubles: list[ReplicaDouble]) -> Rig:
    """Two replicas of an engine that sees scores."""
    rig.publish(engine="transformers")
    return rig


def break_after(event: int | None, doubles: list[ReplicaDouble]) -> None:
    for double in doubles:
        double.break_after = event


@pytest.mark.parametrize("event", [None, 0, 3, 8])
async def test_a_whole_chat_tells_each_token_once(able: Rig, doubles: list[ReplicaDouble], event: int | None) -> None:
    break_after(event, doubles)
    reply = await able.openai().chat.completions.create(**CHAT)  # pyright: ignore[reportCallIssue, reportArgumentType]
    (choice,) = reply.choices
    told = choice.logprobs.content
    assert [one.token for one in told] == TOKENS
    assert [one.logprob for one in told] == [-0.5 * index for index in range(8)]
    assert bytes(byte for one in told for byte in one.bytes).decode() == choice.message.content == text_of(8)
    assert [(other.token, other.logprob) for other in told[0].top_logprobs] == [("x0", 0), ("x1", -1)]


@pytest.mark.parametrize("event", [None, 3])
async def test_a_streamed_chat_tells_each_token_once(
    able: Rig, doubles: list[ReplicaDouble], event: int | None
) -> None:
    break_after(event, doubles)
    stream = await able.openai().chat.completions.create(**CHAT, stream=True)  # pyright: ignore[reportCallIssue, reportArgumentType]
    told: list[str] = []
    async for chunk in stream:
        for choice in chunk.choices:
            told += [one.token for one in (choice.logprobs.content or [])] if choice.logprobs else []
    assert told == TOKENS


@pytest.mark.parametrize("event", [None, 3])
@pytest.mark.parametrize("stream", [False, True])
async def test_text_tells_tokens_and_where_they_begin(
    able: Rig, doubles: list[ReplicaDouble], stream: bool, event: int | None
) -> None:
    break_after(event, doubles)
    reply = await able.http().post("/v1/completions", json={**TEXT, "stream": stream})
    bodies = [json.loads(one) for one in events_of(reply.text) if one != "[DONE]"] if stream else [reply.json()]
    told = [choice["logprobs"] for body in bodies for choice in body["choices"] if choice["logprobs"]]
    assert [token for one in told for token in one["tokens"]] == TOKENS
    assert [at for one in told for at in one["text_offset"]] == [3 * index for index in range(8)]
    assert [value for one in told for value in one["token_logprobs"]] == [-0.5 * index for index in range(8)]
    assert told[0]["top_logprobs"][0] == {"x0": 0, "x1": -1, "w0 ": 0}


async def test_nothing_is_told_unasked(able: Rig) -> None:
    body: dict[str, Any] = {key: value for key, value in CHAT.items() if "logprobs" not in key}
    reply = (await able.http().post("/v1/chat/completions", json=body)).json()
    assert reply["choices"][0]["logprobs"] is None


async def test_a_schema_reaches_the_replica_and_stays_over_a_break(able: Rig, doubles: list[ReplicaDouble]) -> None:
    break_after(3, doubles)
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    body = {"model": "Ship 1", "prompt": "one", "response_format": wanted}
    assert (await able.http().post("/v1/completions", json=body)).status_code == 200
    asked = [request for double in doubles for request in double.requests]
    assert len(asked) > 1
    assert [json.loads(request.json_schema or "") for request in asked] == [schema] * len(asked)


async def test_an_engine_that_cannot_is_named_with_those_that_can(rig: Rig) -> None:
    double = await rig.double()
    rig.publish(engine="ctranslate2")
    for field, value in (("response_format", {"type": "json_object"}), ("logprobs", True)):
        body = {"model": "Ship 1", "messages": [{"role": "user", "content": "one"}], field: value}
        reply = await rig.http().post("/v1/chat/completions", json=body)
        assert reply.status_code == 400
        error = reply.json()["error"]
        assert (error["code"], error["param"]) == ("ENGINE_CANNOT", field)
        assert "transformers and vllm" in error["message"]
    assert not double.requests
