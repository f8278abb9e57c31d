"""A call that is demanded, as a JSON schema: which tools, with which arguments, in the form of the model's family."""

from collections.abc import Sequence
from typing import Any

from dockyard.errors import Invalid, Reason
from dockyard.worker.tool_calls_formats import ToolFormat

_MOST_IN_A_LIST = 8


def schema_of_call(
    form: ToolFormat, tools: Sequence[dict[str, Any]], *, name: str | None = None, parallel: bool = False
) -> dict[str, Any]:
    """Of a call of one of `tools`, or of the one named; where the family writes lists, of a list of such calls.

    Each tool's parameters move to `$defs`, and their own references with them.
    """
    chosen = [tool["function"] for tool in tools if name in (None, tool["function"]["name"])]
    definitions = {str(index): _parameters(function, f"#/$defs/{index}") for index, function in enumerate(chosen)}
    calls = [_call(form, function["name"], f"#/$defs/{index}") for index, function in enumerate(chosen)]
    call = calls[0] if len(calls) == 1 else {"anyOf": calls}
    if form.lists:
        call = {"type": "array", "items": call, "minItems": 1, "maxItems": _MOST_IN_A_LIST if parallel else 1}
    return {**call, "$defs": definitions}


def cannot_demand(why: str) -> Invalid:
    """What a client is told whose tools have parameters that a text cannot be held to."""
    return Invalid(
        f"a call of these tools cannot be demanded: {why}; change their parameters, or send tool_choice 'auto'",
        reason=Reason.SCHEMA_NOT_SUPPORTED,
        field="tools",
    )


def _call(form: ToolFormat, name: str, parameters: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": {"const": name}, form.arguments: {"$ref": parameters}},
        "required": ["name", form.arguments],
        "additionalProperties": False,
    }


def _parameters(function: dict[str, Any], at: str) -> dict[str, Any]:
    """An object, with no properties that the tool does not name unless it says that it takes others."""
    return {"additionalProperties": False, **_moved(function["parameters"], at), "type": "object"}


def _moved(schema: Any, at: str) -> Any:
    """With its references into itself pointing below `at`."""
    if isinstance(schema, dict):
        return {
            key: at + value[1:] if key == "$ref" and isinstance(value, str) and value[:1] == "#" else _moved(value, at)
            for key, value in schema.items()
            if key not in ("$schema", "$id") or not isinstance(value, str)
        }
    if isinstance(schema, list):
        return [_moved(item, at) for item in schema]
    return schema
