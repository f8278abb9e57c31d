"""The official `openai` client against the gateway: every call, every error type, as its users see them."""

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from tests.integration.gateway_rig import ADMIN, BOAT, OF_SHIP, VIEWER, Rig
from tests.integration.replica_double import text_of

from dockyard.protocols.generation import GenerateRequest

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello there"}]


async def test_chat(rig: Rig) -> None:
    double = await rig.double()
    rig.publish()
    reply = await rig.openai().chat.completions.create(model="Ship 1", messages=HELLO, max_tokens=5)
    assert reply.choices[0].message.content == text_of(5)
    assert reply.choices[0].message.role == "assistant"
    assert reply.choices[0].finish_reason == "length"
    assert reply.id.startswith("chatcmpl-")
    assert reply.object == "chat.completion"
    assert reply.model == "Ship 1"
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (2, 5, 7)
    assert double.requests[0].messages == HELLO


async def test_what_the_request_leaves_out_comes_from_the_deployment(rig: Rig) -> None:
    double = await rig.double()
    rig.publish()
    await rig.openai().chat.completions.create(model="dp-ship", messages=HELLO)
    asked = double.requests[0]
    assert (asked.temperature, asked.top_p, asked.top_k, asked.max_tokens) == (0.5, 0.9, 40, 16)
    assert (asked.stop, asked.seed) == (["END"], None)


async def test_what_the_request_says_is_passed_on(rig: Rig) -> None:
    double = await rig.double()
    rig.publish()
    await rig.openai().chat.completions.create(
        model="Ship 1",
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        ],
        temperature=0,
        top_p=0,
        max_completion_tokens=3,
        stop=["x", "y"],
        seed=7,
        extra_body={"top_k": 1},
    )
    assert double.requests[0] == GenerateRequest(
        id=double.requests[0].id,
        messages=[{"role": "system", "content": "be brief"}, {"role": "user", "content": "ab"}],
        temperature=0,
        top_p=0,
        top_k=1,
        max_tokens=3,
        stop=["x", "y"],
        seed=7,
    )


async def test_chat_stream(rig: Rig) -> None:
    await rig.double()
    rig.publish()
    stream = await rig.openai().chat.completions.create(
        model="Ship 1", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    texts = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(texts) == text_of(8)
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


async def test_completion(rig: Rig) -> None:
    double = await rig.double()
    rig.publish()
    reply = await rig.openai().completions.create(model="Ship 1", prompt="once upon a time")
    assert reply.object == "text_completion"
    assert reply.choices[0].text == text_of(8)
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == 4
    assert double.requests[0].prompt == "once upon a time"


async def test_completions_of_several_prompts_keep_their_order(rig: Rig) -> None:
    double = await rig.double(capacity=2)
    rig.publish()
    client = rig.openai()
    reply = await client.completions.create(model="Ship 1", prompt=["a", "b c", "d e f"], max_tokens=4)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (6, 12)
    assert {asked.prompt for asked in double.requests} == {"a", "b c", "d e f"}
    assert double.most_running <= 2

    await client.completions.create(model="Ship 1", prompt=[5, 6, 7])
    assert double.requests[-1].prompt_ids == [5, 6, 7]
    reply = await client.completions.create(model="Ship 1", prompt=[[5, 6], [7]])
    assert len(reply.choices) == 2


async def test_completion_stream_of_several_prompts(rig: Rig) -> None:
    await rig.double()
    rig.publish()
    stream = await rig.openai().completions.create(model="Ship 1", prompt=["a", "b"], stream=True, max_tokens=4)
    texts = {0: "", 1: ""}
    finishes: dict[int, str] = {}
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            if choice.finish_reason:
                finishes[choice.index] = choice.finish_reason
    assert texts == {0: text_of(4), 1: text_of(4)}
    assert finishes == {0: "length", 1: "length"}


async def test_models_are_those_the_key_may_use(rig: Rig) -> None:
    rig.publish()
    rig.publish(BOAT)
    assert [model.id for model in (await rig.openai(ADMIN).models.list()).data] == ["Boat", "Ship 1"]
    assert [model.id for model in (await rig.openai(OF_SHIP).models.list()).data] == ["Ship 1"]
    assert (await rig.openai(VIEWER).models.list()).data == []
    found = await rig.openai().models.retrieve("Ship 1")
    assert (found.id, found.owned_by, found.created, found.object) == ("Ship 1", "dockyard", 1770249600, "model")
    with pytest.raises(openai.NotFoundError):
        await rig.openai(OF_SHIP).models.retrieve("Boat")


async def test_errors_have_their_types(rig: Rig) -> None:
    await rig.double()
    rig.publish()
    rig.publish(BOAT)
    with pytest.raises(openai.AuthenticationError) as unknown:
        await rig.openai("kg-nobody").chat.completions.create(model="Ship 1", messages=HELLO)
    assert unknown.value.code == "UNKNOWN_KEY"
    with pytest.raises(openai.PermissionDeniedError):
        await rig.openai(VIEWER).chat.completions.create(model="Ship 1", messages=HELLO)
    with pytest.raises(openai.PermissionDeniedError):
        await rig.openai(OF_SHIP).chat.completions.create(model="Boat", messages=HELLO)
    with pytest.raises(openai.NotFoundError) as missing:
        await rig.openai().chat.completions.create(model="Raft", messages=HELLO)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        await rig.openai().chat.completions.create(model="Ship 1", messages=HELLO, max_tokens=17)
    assert bad.value.param == "max_tokens"
    assert "maxTokens" in bad.value.message
    with pytest.raises(openai.BadRequestError) as cannot:
        await rig.openai().chat.completions.create(model="Ship 1", messages=HELLO, logprobs=True)
    assert cannot.value.code == "ENGINE_CANNOT"
    assert "echo" in cannot.value.message


async def test_the_key_of_a_deployment_may_use_it(rig: Rig) -> None:
    await rig.double()
    rig.publish()
    reply = await rig.openai(OF_SHIP).chat.completions.create(model="Ship 1", messages=HELLO)
    assert reply.choices[0].message.content
