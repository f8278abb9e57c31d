"""Schemas of demanded calls, and what llguidance makes of them: their texts are calls, and nothing else is."""

import json
from typing import Any

import pytest

from dockyard.worker.tool_calls import ToolCalls
from dockyard.worker.tool_calls_choice import schema_of_call
from dockyard.worker.tool_calls_formats import HERMES, LLAMA3, MISTRAL, ToolFormat

TREE: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"leaf": {"$ref": "#/$defs/Leaf"}, "$id": {"type": "string"}, "below": {"$ref": "#"}},
    "required": ["leaf"],
    "$defs": {"Leaf": {"enum": ["green", "brown"]}},
}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "grow", "parameters": TREE}},
    {"type": "function", "function": {"name": "fell", "parameters": {"type": "object", "properties": {}}}},
]


def test_each_tool_has_its_own_definitions() -> None:
    schema = schema_of_call(HERMES, TOOLS)
    assert [call["properties"]["name"] for call in schema["anyOf"]] == [{"const": "grow"}, {"const": "fell"}]
    assert schema["$defs"]["0"] == {
        "type": "object",
        "properties": {
            "leaf": {"$ref": "#/$defs/0/$defs/Leaf"},
            "$id": {"type": "string"},
            "below": {"$ref": "#/$defs/0"},
        },
        "required": ["leaf"],
        "$defs": {"Leaf": {"enum": ["green", "brown"]}},
        "additionalProperties": False,
    }


def test_the_form_of_the_family() -> None:
    named = schema_of_call(LLAMA3, TOOLS, name="fell")
    assert named["properties"] == {"name": {"const": "fell"}, "parameters": {"$ref": "#/$defs/0"}}
    assert (schema_of_call(MISTRAL, TOOLS)["type"], schema_of_call(MISTRAL, TOOLS)["maxItems"]) == ("array", 1)
    assert schema_of_call(MISTRAL, TOOLS, parallel=True)["maxItems"] == 8


@pytest.mark.parametrize("form", [HERMES, LLAMA3, MISTRAL])
def test_what_the_schema_allows_is_a_call(form: ToolFormat) -> None:
    llguidance = pytest.importorskip("llguidance")
    schema = schema_of_call(form, TOOLS)
    grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides={"lenient": False})
    assert llguidance.LLMatcher.validate_grammar_with_warnings(grammar) == (False, [])
    said = json.dumps({"name": "grow", form.arguments: {"leaf": "green", "below": {"leaf": "brown"}}})
    said = f"[{said}]" if form.lists else said
    calls = ToolCalls(form, "id", {"grow", "fell"}, begun=bool(form.openings) and not form.bare)
    assert calls.push(said) == ""
    (call,) = calls.made
    assert (call.name, json.loads(call.arguments)) == ("grow", {"leaf": "green", "below": {"leaf": "brown"}})
