"""What a chat may ask about tools: their definitions, who chooses, and the turns that called them. Pure."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from dockyard.domain.abilities import cannot_see_scores
from dockyard.domain.json_schema import schema_problems
from dockyard.errors import Problem, Reason
from dockyard.gateway.openai_wire import ChatCompletionRequest, ChatMessage, NamedTool, Tool
from dockyard.protocols.routing import Route

MOST_TOOLS = 128
MOST_BYTES = 256 << 10  # of all definitions; a context of 64,000 tokens has no room for more
DEEPEST = 32  # objects and lists in one another
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_CHOICES = ("none", "auto", "required")
_NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}


def tools_asked(wanted: ChatCompletionRequest, route: Route, problems: list[Problem]) -> dict[str, Any]:
    """The tools and their choice as keyword arguments of `GenerateRequest`; empty if no call is to be made."""
    tools, choice = wanted.tools or [], wanted.tool_choice
    if isinstance(choice, str) and choice not in _CHOICES:
        told = f"tool_choice must be one of {', '.join(_CHOICES)} or name a tool, got '{choice[:64]}'"
        problems.append(Problem(told, Reason.NOT_IN_ENUM, "tool_choice"))
    if not tools:
        if isinstance(choice, NamedTool) or choice == "required":
            told = "tool_choice asks for a call and there are no tools to call: send tools"
            problems.append(Problem(told, Reason.MISSING_FIELD, "tools"))
        return {}
    if isinstance(choice, NamedTool) or choice == "required":
        told = cannot_see_scores(route.engine, "a tool_choice that demands a call", of=route.name)
        if told is not None:
            problems.append(Problem(told, Reason.ENGINE_CANNOT, "tool_choice"))
    asked: dict[str, Any] = {"tools": _defined(tools, problems)}
    if isinstance(choice, NamedTool):
        asked |= {"tool_choice": "required", "tool_name": _named(choice, tools, problems)}
    elif choice == "required":
        asked["tool_choice"] = "required"
    if "tool_choice" in asked and not problems:
        problems += _not_to_be_demanded(asked["tools"], asked.get("tool_name"))
    if wanted.parallel_tool_calls is False or isinstance(choice, NamedTool):
        asked["parallel_tool_calls"] = False
    return {} if choice == "none" else asked


def turn_with_tools(
    message: ChatMessage, at: str, before: Sequence[dict[str, Any]], problems: list[Problem]
) -> dict[str, Any]:
    """What a turn that calls tools, or answers a call, has beside role and content; `before` are those before it."""
    if message.role == "tool":
        return _answer(message, at, before, problems)
    if message.tool_call_id is not None:
        told = f"{at}.tool_call_id is for turns of the role 'tool'; leave it out"
        problems.append(Problem(told, Reason.BAD_FORMAT, f"{at}.tool_call_id"))
    if not message.tool_calls:
        return {}
    if message.role != "assistant":
        told = f"{at}.tool_calls is for turns of the role 'assistant'; leave it out"
        problems.append(Problem(told, Reason.BAD_FORMAT, f"{at}.tool_calls"))
    return {"tool_calls": [_call(call, f"{at}.tool_calls[{i}]", problems) for i, call in enumerate(message.tool_calls)]}


def _defined(tools: Sequence[Tool], problems: list[Problem]) -> list[dict[str, Any]]:
    """The tools as chat templates read them."""
    if len(tools) > MOST_TOOLS:
        told = f"tools must hold at most {MOST_TOOLS}, got {len(tools)}"
        problems.append(Problem(told, Reason.OUT_OF_RANGE, "tools"))
        return []
    defined: list[dict[str, Any]] = []
    names: set[str] = set()
    for index, tool in enumerate(tools):
        function = _function(tool, f"tools[{index}]", names, problems)
        if function is not None:
            defined.append({"type": "function", "function": function})
    if not problems and len(msgspec.json.encode(defined)) > MOST_BYTES:
        told = f"tools must have at most {MOST_BYTES} bytes together; send fewer, or describe them more briefly"
        problems.append(Problem(told, Reason.OUT_OF_RANGE, "tools"))
    return defined


def _function(tool: Tool, at: str, names: set[str], problems: list[Problem]) -> dict[str, Any] | None:
    function = tool.function
    if tool.type != "function":
        told = f"{at}.type must be 'function', got '{tool.type[:64]}'"
        problems.append(Problem(told, Reason.NOT_IN_ENUM, f"{at}.type"))
        return None
    if function is None:
        problems.append(Problem(f"{at}.function is required", Reason.MISSING_FIELD, f"{at}.function"))
        return None
    if not _NAME.fullmatch(function.name):
        told = f"{at}.function.name must be 1 to 64 letters, digits, '_' and '-', got '{function.name[:64]}'"
        problems.append(Problem(told, Reason.BAD_FORMAT, f"{at}.function.name"))
    elif function.name in names:
        told = f"{at}.function.name '{function.name}' is that of a tool before it; give each a name of its own"
        problems.append(Problem(told, Reason.BAD_FORMAT, f"{at}.function.name"))
    names.add(function.name)
    if function.parameters is not None and _deeper_than(function.parameters, DEEPEST):
        told = f"{at}.function.parameters is nested more than {DEEPEST} deep; make it flatter"
        problems.append(Problem(told, Reason.OUT_OF_RANGE, f"{at}.function.parameters"))
        return None
    described = {} if function.description is None else {"description": function.description}
    return {"name": function.name, **described, "parameters": function.parameters or _NO_PARAMETERS}


def _named(choice: NamedTool, tools: Sequence[Tool], problems: list[Problem]) -> str | None:
    if choice.type != "function" or choice.function is None:
        told = "tool_choice must be {'type': 'function', 'function': {'name': …}}, or one of " + ", ".join(_CHOICES)
        problems.append(Problem(told, Reason.BAD_FORMAT, "tool_choice"))
        return None
    name = choice.function.name
    if not any(tool.function is not None and tool.function.name == name for tool in tools):
        told = f"tool_choice names '{name[:64]}', which is none of tools"
        problems.append(Problem(told, Reason.NOT_IN_ENUM, "tool_choice"))
    return name


def _not_to_be_demanded(tools: Sequence[dict[str, Any]], name: str | None) -> Iterator[Problem]:
    """What the parameters of the tools to choose from ask too much for a text to be held to, all of them together."""
    chosen = [tool["function"] for tool in tools if name in (None, tool["function"]["name"])]
    schema = {"$defs": {function["name"]: function["parameters"] for function in chosen}}
    for found in schema_problems(schema, len(msgspec.json.encode(schema))):
        told = f"the parameters of tools, where tool_choice demands a call: {found.at.removeprefix('.$defs.')}"
        yield Problem(f"{told} {found.what}", Reason.SCHEMA_NOT_SUPPORTED, "tools")


def _call(call: Any, at: str, problems: list[Problem]) -> dict[str, Any]:
    """With the arguments as an object: templates write them as JSON themselves."""
    arguments: Any = {}
    if call.type != "function":
        told = f"{at}.type must be 'function', got '{call.type[:64]}'"
        problems.append(Problem(told, Reason.NOT_IN_ENUM, f"{at}.type"))
    if call.function.arguments.strip():
        try:
            arguments = msgspec.json.decode(call.function.arguments)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            arguments = None
    if not isinstance(arguments, dict) or _deeper_than(arguments, DEEPEST):
        told = f"{at}.function.arguments must be the text of a JSON object, nested at most {DEEPEST} deep"
        problems.append(Problem(told, Reason.BAD_FORMAT, f"{at}.function.arguments"))
    return {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": arguments}}


def _answer(message: ChatMessage, at: str, before: Sequence[dict[str, Any]], problems: list[Problem]) -> dict[str, Any]:
    """The id, and the name of the function, which some templates want."""
    if message.tool_call_id is None:
        told = f"{at}.tool_call_id is required: the id of the call that the turn answers"
        problems.append(Problem(told, Reason.MISSING_FIELD, f"{at}.tool_call_id"))
        return {}
    for turn in reversed(before):
        for call in turn.get("tool_calls", ()):
            if call["id"] == message.tool_call_id:
                return {"tool_call_id": message.tool_call_id, "name": call["function"]["name"]}
    told = f"{at}.tool_call_id '{message.tool_call_id[:64]}' is the id of no call in the turns before it"
    problems.append(Problem(told, Reason.BAD_FORMAT, f"{at}.tool_call_id"))
    return {}


def _deeper_than(value: Any, depth: int) -> bool:
    """Level by level: what is hostile enough would exhaust a recursion."""
    level: list[Any] = [value]
    for _ in range(depth):
        level = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
        level = [inner for inner in level if isinstance(inner, dict | list)]
        if not level:
            return False
    return True
