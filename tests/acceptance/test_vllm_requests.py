"""What requests ask of vLLM beside text, by the official client: calls of tools, several choices, scores, seeds."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import openai
import pytest
from jsonschema_rs import validator_for
from tests.acceptance import test_vllm
from tests.acceptance.server import MODELS, Server, body

pytestmark = test_vllm.pytestmark
NAME, PROMPT = "kjv", "And God said"
ASKED: list[Any] = [{"role": "user", "content": PROMPT}]
TEMPLATE = "{{ messages[-1].content }}{% if tools %}{# <tool_call></tool_call> #}{% endif %}"
LIT: dict[str, Any] = {
    "type": "object",
    "properties": {"by": {"enum": ["sun", "moon"]}, "hours": {"type": "integer", "minimum": 1, "maximum": 24}},
    "required": ["by", "hours"],
}
SAILED: dict[str, Any] = {"type": "object", "properties": {"to": {"type": "string", "pattern": "^[A-Z][a-z]{2,5}$"}}}
PARAMETERS = {"light": LIT, "sail": {**SAILED, "required": ["to"]}}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "parameters": parameters}}
    for name, parameters in PARAMETERS.items()
]
SAIL: Any = {"type": "function", "function": {"name": "sail"}}
VERDICT: dict[str, Any] = {
    "type": "object",
    "properties": {"good": {"type": "boolean"}},
    "required": ["good"],
    "additionalProperties": False,
}
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": VERDICT}}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """gpt2-kjv with a chat template that has a place for tools, on one replica of vLLM."""
    made = tmp_path_factory.mktemp("requests")
    folder = shutil.copytree(MODELS / "gpt2-kjv", made / "model")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    # Without a compiler: on a CPU nothing may need one.
    with Server(made / "data", DOCKYARD_VLLM_PYTHON=str(test_vllm.PYTHON), CXX="/no/compiler") as server:
        server.wait(server.begin_deploy(brought(server, folder), body(NAME, "vllm", maxReplicas=1)), timeout_s=600)
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0, timeout=60) as made_client:
            yield made_client


def brought(server: Server, folder: Path) -> str:
    accepted = server.post("/models", {"name": NAME, "modelType": "openSource", "source": {"path": str(folder)}})
    server.wait(accepted["dockStatusId"])
    return accepted["modelId"]


def chat(client: openai.OpenAI, **wish: Any) -> Any:
    return client.chat.completions.create(**{"model": NAME, "messages": ASKED, "max_tokens": 64, **wish})


def complete(client: openai.OpenAI, **wish: Any) -> Any:
    return client.completions.create(**{"model": NAME, "prompt": PROMPT, "max_tokens": 16, **wish})


def calls_of(choices: Sequence[Any]) -> list[tuple[str, dict[str, Any]]]:
    """Each valid: name and arguments."""
    made = [call.function for choice in choices for call in choice.message.tool_calls]
    calls = [(function.name, json.loads(function.arguments)) for function in made]
    for name, arguments in calls:
        validator_for(PARAMETERS[name]).validate(arguments)
    return calls


def mean(choice: Any) -> float:
    told: list[float] = choice.logprobs.token_logprobs
    return sum(told) / len(told)


# Calls of tools


def test_a_demanded_call_is_one_of_a_tool_with_valid_arguments(client: openai.OpenAI) -> None:
    choices = chat(client, tools=TOOLS, tool_choice="required", temperature=1, seed=3, n=8).choices
    assert {choice.finish_reason for choice in choices} == {"tool_calls"}
    assert {choice.message.content for choice in choices} == {None}
    assert len(calls_of(choices)) == 8


def test_a_named_call_is_that_one(client: openai.OpenAI) -> None:
    choices = chat(client, tools=TOOLS, tool_choice=SAIL, temperature=2, seed=3, n=8).choices
    assert [name for name, _ in calls_of(choices)] == ["sail"] * 8


def test_a_streamed_call_is_the_same(client: openai.OpenAI) -> None:
    wish: dict[str, Any] = {"tools": TOOLS, "tool_choice": "required", "temperature": 1, "seed": 5}
    (call,) = chat(client, **wish).choices[0].message.tool_calls
    told = [choice for chunk in chat(client, stream=True, **wish) for choice in chunk.choices]
    (streamed,) = [one for choice in told for one in choice.delta.tool_calls or []]
    assert (streamed.function.name, streamed.function.arguments) == (call.function.name, call.function.arguments)
    assert (told[-1].finish_reason, [one.delta.content for one in told if one.delta.content]) == ("tool_calls", [])


def test_tools_win_over_a_format(client: openai.OpenAI) -> None:
    both: dict[str, Any] = {"tools": TOOLS, "response_format": FORMAT, "temperature": 0}
    assert calls_of(chat(client, tool_choice="required", **both).choices)
    free = chat(client, tools=TOOLS, temperature=0).choices[0].message.content
    assert chat(client, **both).choices[0].message.content == free
    untold = chat(client, tool_choice="none", **both).choices[0]
    validator_for(VERDICT).validate(json.loads(untold.message.content))
    assert untold.finish_reason == "stop"


# Several choices


def test_each_choice_is_what_its_seed_gives_alone_and_all_are_counted(client: openai.OpenAI) -> None:
    together = chat(client, n=3, seed=11, temperature=1, max_tokens=20)
    alone = [chat(client, seed=seed, temperature=1, max_tokens=20) for seed in (11, 12, 13)]
    texts = [choice.message.content for choice in together.choices]
    assert [choice.index for choice in together.choices] == [0, 1, 2]
    assert texts == [one.choices[0].message.content for one in alone]
    assert len(set(texts)) == 3
    assert together.usage.prompt_tokens == alone[0].usage.prompt_tokens
    assert together.usage.completion_tokens == sum(one.usage.completion_tokens for one in alone)
    assert together.usage.total_tokens == together.usage.prompt_tokens + together.usage.completion_tokens


def test_a_seed_draws_the_same_again(client: openai.OpenAI) -> None:
    first, again, other = (complete(client, seed=seed, temperature=1).choices[0].text for seed in (7, 7, 8))
    assert first == again != other


def test_the_best_are_the_most_probable_of_all(client: openai.OpenAI) -> None:
    wish: dict[str, Any] = {"temperature": 1, "seed": 2, "logprobs": 0}
    every = complete(client, n=5, **wish)
    best = complete(client, n=2, best_of=5, **wish)
    expected = sorted(every.choices, key=mean, reverse=True)[:2]
    assert [choice.text for choice in best.choices] == [choice.text for choice in expected]
    assert best.usage == every.usage


# Scores


def test_logprobs_of_a_chat(client: openai.OpenAI) -> None:
    choice = chat(client, temperature=0, max_tokens=8, logprobs=True, top_logprobs=3).choices[0]
    told = choice.logprobs.content
    assert len(told) == 8
    assert bytes(byte for one in told for byte in one.bytes).decode() == choice.message.content
    for one in told:
        assert len(one.top_logprobs) == 3
        assert one.token == one.top_logprobs[0].token
        assert 0 >= one.logprob == max(other.logprob for other in one.top_logprobs)


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_of_a_text(client: openai.OpenAI, stream: bool) -> None:
    reply = complete(client, temperature=1, seed=4, logprobs=2, stream=stream)
    choices = [choice for one in (reply if stream else [reply]) for choice in one.choices]
    told = [choice.logprobs for choice in choices if choice.logprobs is not None]
    tokens = [token for one in told for token in one.tokens]
    assert "".join(tokens) == "".join(choice.text for choice in choices)
    assert [at for one in told for at in one.text_offset] == [len("".join(tokens[:i])) for i in range(16)]
    assert all(len(top) in (2, 3) for one in told for top in one.top_logprobs)


# What is refused

CANNOT: list[tuple[str, dict[str, Any], str]] = [
    ("chat", {"presence_penalty": 1}, "presence_penalty"),
    ("chat", {"logit_bias": {"7": 5}}, "logit_bias"),
    ("completions", {"suffix": "amen"}, "suffix"),
    ("completions", {"echo": True}, "echo"),
    ("completions", {"best_of": 3, "stream": True}, "best_of"),
    ("completions", {"best_of": 2, "n": 3}, "best_of"),
    ("chat", {"n": 17}, "n"),
    ("chat", {"tool_choice": "required"}, "tools"),
    ("chat", {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "fly"}}}, "tool_choice"),
    (
        "chat",
        {
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"not": {"type": "null"}}}}],
            "tool_choice": "required",
        },
        "tools",
    ),
]


@pytest.mark.parametrize(("route", "wish", "field"), CANNOT)
def test_what_it_cannot_is_said(client: openai.OpenAI, route: str, wish: dict[str, Any], field: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        (chat if route == "chat" else complete)(client, **wish)
    error: Any = refused.value.body
    assert error["param"] == field
    assert field in error["message"]
