"""Tools, their choice, and the turns that used them: what becomes of them, and what is refused."""

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.gateway.test_admission import ROUTE
from tests.unit.gateway.test_openai_checks import HELLO, chat

from dockyard.errors import Invalid, Reason

PARAMETERS: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "description": "Tells it.", "parameters": PARAMETERS},
}
TIME: dict[str, Any] = {"type": "function", "function": {"name": "time", "strict": True}}
NAMED: dict[str, Any] = {"type": "function", "function": {"name": "time"}}
CALL: dict[str, Any] = {"id": "c1", "type": "function", "function": {"name": "time", "arguments": '{"zone": "UTC"}'}}
CALLED: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [CALL]}
ANSWER: dict[str, Any] = {"role": "tool", "content": "12:00", "tool_call_id": "c1"}


def nested(depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for _ in range(depth - 1):
        made = {"properties": made}
    return made


def test_tools_as_templates_read_them() -> None:
    asked = chat(tools=[WEATHER, TIME])
    bare = {"name": "time", "parameters": {"type": "object", "properties": {}}}
    assert asked.tools == [WEATHER, {"type": "function", "function": bare}]
    assert (asked.tool_choice, asked.tool_name, asked.parallel_tool_calls) == ("auto", None, True)


@pytest.mark.parametrize(
    "fields", [{}, {"tools": []}, {"tool_choice": "auto"}, {"tools": [TIME], "tool_choice": "none"}]
)
def test_no_tools_are_none(fields: dict[str, Any]) -> None:
    assert chat(**fields).tools == []


def test_choices() -> None:
    able = replace(ROUTE, engine="transformers")
    asked = chat(able, tools=[WEATHER, TIME], tool_choice="required", parallel_tool_calls=False)
    assert (asked.tool_choice, asked.tool_name, asked.parallel_tool_calls) == ("required", None, False)
    asked = chat(able, tools=[WEATHER, TIME], tool_choice=NAMED)
    assert (asked.tool_choice, asked.tool_name, asked.parallel_tool_calls) == ("required", "time", False)


@pytest.mark.parametrize("choice", ["required", NAMED])
def test_an_engine_that_cannot_be_held_to_a_call(choice: Any) -> None:
    with pytest.raises(Invalid, match="cannot do a tool_choice that demands a call") as refused:
        chat(tools=[WEATHER, TIME], tool_choice=choice)
    problem = refused.value.problems[0]
    assert (problem.reason, problem.field) == (Reason.ENGINE_CANNOT, "tool_choice")


REFUSED: list[tuple[dict[str, Any], Reason, str]] = [
    ({"tools": {}}, Reason.WRONG_TYPE, "tools"),
    ({"tools": [1]}, Reason.WRONG_TYPE, "tools[0]"),
    ({"tools": [{"type": "custom"}]}, Reason.NOT_IN_ENUM, "tools[0].type"),
    ({"tools": [{"type": "function"}]}, Reason.MISSING_FIELD, "tools[0].function"),
    ({"tools": [{"type": "function", "function": {}}]}, Reason.MISSING_FIELD, "tools[0].function.name"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, Reason.BAD_FORMAT, "tools[0].function.name"),
    ({"tools": [{"type": "function", "function": {"name": "a" * 65}}]}, Reason.BAD_FORMAT, "tools[0].function.name"),
    ({"tools": [TIME, TIME]}, Reason.BAD_FORMAT, "tools[1].function.name"),
    ({"tools": [TIME] * 129}, Reason.OUT_OF_RANGE, "tools"),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "description": "x" * (256 << 10)}}]},
        Reason.OUT_OF_RANGE,
        "tools",
    ),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": nested(33)}}]},
        Reason.OUT_OF_RANGE,
        "tools[0].function.parameters",
    ),
    ({"tools": [TIME], "tool_choice": "maybe"}, Reason.NOT_IN_ENUM, "tool_choice"),
    ({"tools": [TIME], "tool_choice": {"type": "allowed_tools"}}, Reason.BAD_FORMAT, "tool_choice"),
    ({"tools": [WEATHER], "tool_choice": NAMED}, Reason.NOT_IN_ENUM, "tool_choice"),
    ({"tool_choice": "required"}, Reason.MISSING_FIELD, "tools"),
    ({"tool_choice": NAMED}, Reason.MISSING_FIELD, "tools"),
    ({"parallel_tool_calls": "no"}, Reason.WRONG_TYPE, "parallel_tool_calls"),
]


@pytest.mark.parametrize(("fields", "reason", "field"), REFUSED)
def test_what_is_refused(fields: dict[str, Any], reason: Reason, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        chat(replace(ROUTE, engine="transformers"), **fields)
    assert (refused.value.problems[0].reason, refused.value.problems[0].field) == (reason, field)


def test_what_is_demanded_must_be_a_schema_that_a_text_can_be_held_to() -> None:
    hostile = {"type": "object", "properties": {"a": {"type": "string", "pattern": "(a{999}){999}"}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": hostile}}, TIME]
    able = replace(ROUTE, engine="transformers")
    assert len(chat(able, tools=tools).tools) == 2
    assert chat(able, tools=tools, tool_choice=NAMED).tool_name == "time"
    with pytest.raises(Invalid, match=r"f\.properties\.a\.pattern must repeat") as refused:
        chat(able, tools=tools, tool_choice="required")
    problem = refused.value.problems[0]
    assert (problem.reason, problem.field) == (Reason.SCHEMA_NOT_SUPPORTED, "tools")


@pytest.mark.parametrize("engine", ["transformers", "ctranslate2"])
def test_tools_win_over_a_format(engine: str) -> None:
    asked = chat(replace(ROUTE, engine=engine), tools=[TIME], response_format={"type": "json_object"})
    assert asked.json_schema is None
    assert asked.tools


def test_a_schema_may_be_as_deep_as_that() -> None:
    assert chat(tools=[{"type": "function", "function": {"name": "f", "parameters": nested(32)}}]).tools


def test_turns_with_tools_as_templates_read_them() -> None:
    asked = chat(messages=[HELLO, CALLED, ANSWER])
    assert asked.messages == [
        HELLO,
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "time", "arguments": {"zone": "UTC"}}}
            ],
        },
        {"role": "tool", "content": "12:00", "tool_call_id": "c1", "name": "time"},
    ]


def test_a_call_without_arguments() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "time", "arguments": ""}}
    messages = chat(messages=[HELLO, {**CALLED, "tool_calls": [call]}]).messages
    assert messages is not None
    assert messages[1]["tool_calls"][0]["function"]["arguments"] == {}


def called(**function: Any) -> dict[str, Any]:
    return {**CALLED, "tool_calls": [{**CALL, "function": {**CALL["function"], **function}}]}


TURNS: list[tuple[list[dict[str, Any]], Reason, str]] = [
    ([ANSWER], Reason.BAD_FORMAT, "messages[0].tool_call_id"),
    ([CALLED, {**ANSWER, "tool_call_id": "c2"}], Reason.BAD_FORMAT, "messages[1].tool_call_id"),
    ([CALLED, {"role": "tool", "content": "x"}], Reason.MISSING_FIELD, "messages[1].tool_call_id"),
    ([CALLED, {**ANSWER, "content": None}], Reason.MISSING_FIELD, "messages[1].content"),
    ([{**HELLO, "tool_call_id": "c1"}], Reason.BAD_FORMAT, "messages[0].tool_call_id"),
    ([{**HELLO, "tool_calls": [CALL]}], Reason.BAD_FORMAT, "messages[0].tool_calls"),
    ([{**CALLED, "tool_calls": [{}]}], Reason.MISSING_FIELD, "messages[0].tool_calls[0].id"),
    ([{**CALLED, "tool_calls": []}], Reason.MISSING_FIELD, "messages[0].content"),
    ([called(arguments="{")], Reason.BAD_FORMAT, "messages[0].tool_calls[0].function.arguments"),
    ([called(arguments="[]")], Reason.BAD_FORMAT, "messages[0].tool_calls[0].function.arguments"),
    ([called(arguments={})], Reason.WRONG_TYPE, "messages[0].tool_calls[0].function.arguments"),
    ([called(arguments='{"a":' * 9000)], Reason.BAD_FORMAT, "messages[0].tool_calls[0].function.arguments"),
    (
        [called(arguments='{"a":' * 33 + "1" + "}" * 33)],
        Reason.BAD_FORMAT,
        "messages[0].tool_calls[0].function.arguments",
    ),
    ([{**CALLED, "tool_calls": [{**CALL, "type": "custom"}]}], Reason.NOT_IN_ENUM, "messages[0].tool_calls[0].type"),
]


@pytest.mark.parametrize(("messages", "reason", "field"), TURNS)
def test_turns_that_are_refused(messages: list[dict[str, Any]], reason: Reason, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        chat(messages=messages)
    assert (refused.value.problems[0].reason, refused.value.problems[0].field) == (reason, field)
