"""`response_format` and `logprobs`, field by field."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from tests.unit.gateway.test_admission import ROUTE

from dockyard.errors import Invalid, Problem, Reason
from dockyard.gateway.openai_checks import chat_generation, text_generations
from dockyard.gateway.openai_logprobs import TextOffsets
from dockyard.gateway.openai_wire import BodyDecoder, ChatCompletionRequest, CompletionRequest
from dockyard.protocols.generation import Alternative, GenerateRequest, TokenLogprob

ABLE = replace(ROUTE, engine="vllm")
SCHEMA = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {}}}
TOOL = {"type": "function", "function": {"name": "f"}}


def chat(**fields: Any) -> GenerateRequest:
    body = msgspec.json.encode({"model": "Ship", "messages": [{"role": "user", "content": "hello"}], **fields})
    return chat_generation(BodyDecoder(ChatCompletionRequest).decode(body), ABLE, "id")[0]


def text(**fields: Any) -> GenerateRequest:
    body = msgspec.json.encode({"model": "Ship", "prompt": "hello", **fields})
    return text_generations(BodyDecoder(CompletionRequest).decode(body), ABLE, "id")[0]


def of_schema(schema: Any = SCHEMA, name: Any = "answer", **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema, **more}}


def problem(ask: Any, **fields: Any) -> Problem:
    with pytest.raises(Invalid) as refused:
        ask(**fields)
    return refused.value.problems[0]


@pytest.mark.parametrize("ask", [chat, text])
def test_formats(ask: Any) -> None:
    assert ask(response_format={"type": "text"}).json_schema is None
    assert ask(response_format={"type": "json_object"}).json_schema == '{"type":"object"}'
    wanted = of_schema(strict=True, description="an answer")
    assert ask(response_format=wanted).json_schema == msgspec.json.encode(SCHEMA).decode()  # in the client's order


def test_tools_win_over_a_format() -> None:
    assert chat(response_format=of_schema(), tools=[TOOL]).json_schema is None
    assert chat(response_format=of_schema(), tools=[]).json_schema is not None


@pytest.mark.parametrize(
    ("value", "reason", "field"),
    [
        ("json", Reason.WRONG_TYPE, "response_format"),
        ({}, Reason.MISSING_FIELD, "response_format.type"),
        ({"type": "yaml"}, Reason.NOT_IN_ENUM, "response_format.type"),
        ({"type": "json_schema"}, Reason.MISSING_FIELD, "response_format.json_schema"),
        (of_schema(name=None), Reason.MISSING_FIELD, "response_format.json_schema.name"),
        (of_schema(name="a b"), Reason.BAD_FORMAT, "response_format.json_schema.name"),
        (of_schema(schema=None), Reason.MISSING_FIELD, "response_format.json_schema.schema"),
        (of_schema(schema=[]), Reason.WRONG_TYPE, "response_format.json_schema.schema"),
        (of_schema(schemas=1), Reason.BAD_FORMAT, "response_format.json_schema.schemas"),
        (
            of_schema({"properties": {"a": {"type": "objekt"}}}),
            Reason.SCHEMA_NOT_SUPPORTED,
            "response_format.json_schema.schema.properties.a.type",
        ),
        (
            of_schema({"pattern": "(a{99}){99}"}),
            Reason.SCHEMA_NOT_SUPPORTED,
            "response_format.json_schema.schema.pattern",
        ),
        (of_schema({"description": "x" * 65_536}), Reason.SCHEMA_NOT_SUPPORTED, "response_format.json_schema.schema"),
    ],
)
@pytest.mark.parametrize("ask", [chat, text])
def test_formats_that_are_none(ask: Any, value: Any, reason: Reason, field: str) -> None:
    found = problem(ask, response_format=value)
    assert (found.reason, found.field) == (reason, field)


def test_counts_of_logprobs() -> None:
    assert chat().logprobs is None
    assert chat(logprobs=False).logprobs is None
    assert chat(logprobs=True).logprobs == 0
    assert chat(logprobs=True, top_logprobs=20).logprobs == 20
    assert text(logprobs=False).logprobs is None
    assert text(logprobs=0).logprobs == 0
    assert text(logprobs=5).logprobs == 5


@pytest.mark.parametrize(
    ("ask", "fields", "reason", "field"),
    [
        (chat, {"logprobs": True, "top_logprobs": 21}, Reason.OUT_OF_RANGE, "top_logprobs"),
        (chat, {"logprobs": True, "top_logprobs": -1}, Reason.OUT_OF_RANGE, "top_logprobs"),
        (chat, {"top_logprobs": 2}, Reason.BAD_FORMAT, "top_logprobs"),
        (chat, {"logprobs": 1}, Reason.WRONG_TYPE, "logprobs"),
        (text, {"logprobs": 6}, Reason.OUT_OF_RANGE, "logprobs"),
        (text, {"logprobs": True}, Reason.WRONG_TYPE, "logprobs"),
    ],
)
def test_logprobs_that_are_none(ask: Any, fields: Any, reason: Reason, field: str) -> None:
    found = problem(ask, **fields)
    assert (found.reason, found.field) == (reason, field)


def test_offsets_count_characters_that_tokens_share() -> None:
    ship = "🚢".encode()
    pieces = [b"a ", ship[:2], ship[2:], b"b"]
    offsets = TextOffsets()
    told = [offsets.told([TokenLogprob(raw, -1.0, [Alternative(b"z", -2.0)])]) for raw in pieces]
    assert [one.text_offset for one in told if one] == [[0], [2], [2], [3]]
    assert offsets.told([]) is None
