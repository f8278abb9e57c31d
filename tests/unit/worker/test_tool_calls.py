"""What is a call and what is text, for each family, however the text is cut into pieces."""

import itertools
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockyard.worker.tool_calls import ToolCalls
from dockyard.worker.tool_calls_formats import (
    GRANITE,
    HERMES,
    LLAMA3,
    MISTRAL,
    PHI4,
    ToolFormat,
    find_tool_format,
)

ADD = '{"name": "add", "arguments": {"a": 1, "b": "}\\"{<"}}'
SUB = '{"name": "sub", "arguments": {}}'
CALL_OF_ADD = ("add", '{"a": 1, "b": "}\\"{<"}')
CALL_OF_SUB = ("sub", "{}")
LLAMA_ADD = ADD.replace("arguments", "parameters")
LLAMA_SUB = SUB.replace("arguments", "parameters")

Told = tuple[str, list[tuple[str, str]]]


def read(form: ToolFormat, pieces: Sequence[str], **options: Any) -> Told:
    calls = ToolCalls(form, "id", {"add", "sub"}, **options)
    text = "".join([*map(calls.push, pieces), calls.flush()])
    return text, [(call.name, call.arguments) for call in calls.made]


CALLS: list[tuple[ToolFormat, str, str, list[tuple[str, str]]]] = [
    (HERMES, f"<tool_call>\n{ADD}\n</tool_call>", "", [CALL_OF_ADD]),
    (HERMES, f"\n\n<tool_call>{ADD}</tool_call>\n<tool_call>{SUB}</tool_call>\n", "", [CALL_OF_ADD, CALL_OF_SUB]),
    (HERMES, f"I add.\n<tool_call>{ADD}</tool_call>", "I add.\n", [CALL_OF_ADD]),
    (HERMES, f"<tool_call>{ADD}</tool_call> Done.", " Done.", [CALL_OF_ADD]),
    (HERMES, f"<tool_call>[{ADD}, {SUB}]</tool_call>", "", [CALL_OF_ADD, CALL_OF_SUB]),
    (HERMES, f"<tool_call>\n{ADD}", "", [CALL_OF_ADD]),
    (HERMES, f"<tool_call>\n{ADD}\n</tool_c", "", [CALL_OF_ADD]),
    (HERMES, f"<tool_call>{ADD}<tool_call>{SUB}", "", [CALL_OF_ADD, CALL_OF_SUB]),
    (HERMES, '<tool_call>{"name": "unknown"}</tool_call>', "", [("unknown", "{}")]),
    (HERMES, '<tool_call>{"name": "add", "arguments": "{\\"a\\": 2}"}</tool_call>', "", [("add", '{"a": 2}')]),
    (HERMES, '<tool_call>{"name": "add", "arguments": null}</tool_call>', "", [("add", "{}")]),
    (MISTRAL, f"[TOOL_CALLS] [{ADD}, {SUB}]", "", [CALL_OF_ADD, CALL_OF_SUB]),
    (MISTRAL, "[TOOL_CALLS]add{}", "", [("add", "{}")]),
    (MISTRAL, '[TOOL_CALLS]add[ARGS]{"a": 1}[TOOL_CALLS]sub[ARGS]{}', "", [("add", '{"a": 1}'), ("sub", "{}")]),
    (MISTRAL, f"Well.[TOOL_CALLS][{SUB}]", "Well.", [CALL_OF_SUB]),
    (LLAMA3, LLAMA_ADD, "", [CALL_OF_ADD]),
    (LLAMA3, f"\n{ADD}\n", "", [CALL_OF_ADD]),
    (LLAMA3, f"<|python_tag|>{LLAMA_ADD}", "", [CALL_OF_ADD]),
    (LLAMA3, f"{LLAMA_ADD}; {LLAMA_SUB}", "", [CALL_OF_ADD, CALL_OF_SUB]),
    (LLAMA3, f"{LLAMA_ADD}\n{LLAMA_SUB};", "", [CALL_OF_ADD, CALL_OF_SUB]),
    (LLAMA3, f"{LLAMA_ADD} is it", " is it", [CALL_OF_ADD]),
    (PHI4, f"<|tool_call|>[{ADD}]<|/tool_call|>", "", [CALL_OF_ADD]),
    (GRANITE, f"<|tool_call|>[{SUB}]", "", [CALL_OF_SUB]),
]
TEXTS: list[tuple[ToolFormat, str]] = [
    (HERMES, ""),
    (HERMES, "  \n"),
    (HERMES, "no call < here <tool"),
    (HERMES, ADD),
    (HERMES, "<tool_call>"),
    (HERMES, f"<tool_call>{ADD[:-3]}"),
    (HERMES, "<tool_call>add it</tool_call>"),
    (HERMES, "<tool_call>{'name': 'add'}</tool_call>"),
    (HERMES, '<tool_call>{"arguments": {}}</tool_call>'),
    (HERMES, '<tool_call>{"name": "add", "arguments": 3}</tool_call>'),
    (HERMES, '<tool_call>{"name": "add", "arguments": {"a": NaN}}</tool_call>'),
    (HERMES, '<tool_call>{"name": "a b", "arguments": {}}</tool_call>'),
    (HERMES, "<tool_call>[]</tool_call>"),
    (HERMES, '<tool_call>{"name": "add", "arguments": ' + "[" * 9000),
    (HERMES, '<tool_call>{"name": "\\ud800", "arguments": {}}</tool_call>'),
    (MISTRAL, "[TOOL_CALLS] add"),
    (MISTRAL, "[TOOL_CALLS] add [1]"),
    (LLAMA3, '{"name": "Ada", "parameters": {}}'),
    (LLAMA3, '{"name": "add"}'),
    (LLAMA3, "{}"),
    (LLAMA3, "[1] a footnote"),
    (LLAMA3, f"The call is {LLAMA_ADD}"),
    (LLAMA3, '<|python_tag|>brave_search.call(query="x")'),
]


@pytest.mark.parametrize(("form", "said", "text", "calls"), CALLS)
def test_calls(form: ToolFormat, said: str, text: str, calls: list[tuple[str, str]]) -> None:
    assert read(form, [said]) == (text, calls)
    assert read(form, list(said)) == (text, calls)
    assert all(isinstance(json.loads(arguments), dict) for _, arguments in calls)


@pytest.mark.parametrize(("form", "said"), TEXTS)
def test_what_is_no_call_is_text_to_the_last_character(form: ToolFormat, said: str) -> None:
    assert read(form, [said]) == (said, [])
    assert read(form, list(said)) == (said, [])


def test_a_call_after_one_that_is_none() -> None:
    broken = '<tool_call>{"name": "add", "arguments": {}</tool_call>\n'
    assert read(HERMES, [f"{broken}<tool_call>{SUB}</tool_call>"]) == (broken, [CALL_OF_SUB])
    assert read(LLAMA3, [f"{LLAMA_SUB};{{}}"]) == (";{}", [CALL_OF_SUB])


def test_nothing_of_a_call_goes_out_before_its_end_is_known() -> None:
    calls = ToolCalls(HERMES, "id", {"add"})
    assert calls.push("So <tool_call>" + ADD[:20]) == "So "
    assert calls.push(ADD[20:]) == ""
    assert [call.name for call in calls.made] == ["add"]


def test_no_more_calls_than_wanted() -> None:
    said = f"<tool_call>{ADD}</tool_call>"
    assert read(HERMES, [said + said + " and on"], most=1) == ("", [CALL_OF_ADD])
    assert read(MISTRAL, [f"[TOOL_CALLS][{ADD}, {SUB}]"], most=1) == ("", [CALL_OF_ADD])


def test_the_opening_may_be_in_the_prompt() -> None:
    assert read(HERMES, [f"{ADD}\n</tool_call>"], begun=True) == ("", [CALL_OF_ADD])
    assert read(HERMES, [ADD[:9]], begun=True) == (ADD[:9], [])


def test_ids_are_the_same_wherever_the_call_is_read() -> None:
    def ids(form: ToolFormat, request_id: str, pieces: Sequence[str]) -> list[str]:
        calls = ToolCalls(form, request_id, {"add"})
        for piece in pieces:
            calls.push(piece)
        return [call.id for call in calls.made]

    said = f"<tool_call>{ADD}</tool_call><tool_call>{ADD}</tool_call>"
    assert ids(HERMES, "a", [said]) == ids(HERMES, "a", list(said))
    assert len({*ids(HERMES, "a", [said]), *ids(HERMES, "b", [said])}) == 4
    (short,) = ids(MISTRAL, "a", [f"[TOOL_CALLS][{ADD}]"])
    assert len(short) == 9
    assert short.isalnum()


PARTS = st.sampled_from(
    [
        *("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>", ADD, SUB, LLAMA_ADD, LLAMA_SUB),
        *("[", "]", "{", "}", ";", ",", " ", "\n", "<", "add", "é", '"', "\\", "text"),
    ]
)


@given(
    form=st.sampled_from([HERMES, MISTRAL, LLAMA3]),
    parts=st.lists(PARTS, max_size=8),
    cuts=st.lists(st.integers(0, 400), max_size=6),
    most=st.sampled_from([None, 1]),
)
def test_pieces_make_no_difference(form: ToolFormat, parts: list[str], cuts: list[int], most: int | None) -> None:
    said = "".join(parts)
    at = sorted({0, *(cut for cut in cuts if cut < len(said)), len(said)})
    pieces = [said[start:end] for start, end in itertools.pairwise(at)]
    whole = read(form, [said], most=most)
    assert read(form, pieces, most=most) == whole
    assert read(form, list(said), most=most) == whole
    if not whole[1]:
        assert whole[0] == said


TEMPLATES: list[tuple[str, ToolFormat | None]] = [
    ("{% if tools %}within <tool_call></tool_call> XML tags{% endif %}", HERMES),
    ("{{ '[TOOL_CALLS] [' }}", MISTRAL),
    ('{"name": function name, "parameters": dictionary of argument name and its value}', LLAMA3),
    ("{{ '<|tool_call|>' }}{{ '<|/tool_call|>' }}", PHI4),
    ("{{ '<|tool_call|>' }}", GRANITE),
    ("<tool_call>\n<function=example>\n</tool_call>", None),
    ("{% if tools %}{{ tools | tojson }}{% endif %}", None),
]


@pytest.mark.parametrize(("template", "form"), TEMPLATES)
def test_the_format_is_told_by_the_template(template: str, form: ToolFormat | None) -> None:
    assert find_tool_format(template) is form
