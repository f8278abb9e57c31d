"""Renders chat messages and tools with a model's own Jinja template, in the sandbox and with the names it expects."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes

from dockyard.clock import Clock
from dockyard.errors import Invalid
from dockyard.template_sandbox import TemplateSandbox
from dockyard.worker.tool_calls import speaks_of_tools
from dockyard.worker.tool_calls_formats import ToolFormat, find_tool_format

_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_REFUSALS = (jinja2.TemplateError, TypeError, LookupError, ValueError, AttributeError, ArithmeticError)


class ChatTemplate:
    """Filters and names as Transformers sets them up (`utils/chat_template_utils.py`).

    `reads_tools`: it has a place for tools. `tool_format`: how its family writes calls, None if that is not known.
    `tool_source` is the template for conversations with tools, of a model that has one of its own for them.
    """

    def __init__(
        self, source: str, special_tokens: dict[str, str], clock: Clock, tool_source: str | None = None
    ) -> None:
        environment = TemplateSandbox()
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda form: clock.now().strftime(form)
        tree = environment.parse(source)
        self._template = environment.from_string(tree)
        self._special_tokens = special_tokens
        self.reads_tools = any(name.name == "tools" and name.ctx == "load" for name in tree.find_all(nodes.Name))
        self.tool_format: ToolFormat | None = find_tool_format(source) if self.reads_tools else None
        self._with_tools = ChatTemplate(tool_source, special_tokens, clock) if tool_source else None
        if self._with_tools is not None:
            self.reads_tools = self._with_tools.reads_tools
            self.tool_format = self._with_tools.tool_format

    def render(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] = ()) -> str:
        """The prompt, up to where the assistant speaks. Raises `Invalid` with what the template says is wrong."""
        if self._with_tools is not None and (tools or speaks_of_tools(messages)):
            return self._with_tools.render(messages, tools)
        try:
            return self._template.render(
                messages=[_plain(message) for message in messages],
                add_generation_prompt=True,
                tools=list(tools) or None,
                documents=None,
                **self._special_tokens,
            )
        except (*_REFUSALS, RecursionError, MemoryError) as error:
            raise Invalid(f"the model's chat template refuses these messages: {error}", field="messages") from error


def find_chat_template(model_dir: Path, clock: Clock) -> ChatTemplate | None:
    """The folder's template: `chat_template.jinja`, else `chat_template` of `tokenizer_config.json`."""
    config_path = model_dir / "tokenizer_config.json"
    config: dict[str, Any] = json.loads(config_path.read_text("utf-8")) if config_path.exists() else {}
    file = model_dir / "chat_template.jinja"
    named = _by_name(config.get("chat_template"))
    source, tool_source = (file.read_text("utf-8"), None) if file.exists() else map(named.get, ("default", "tool_use"))
    if not source:
        return None
    tokens = {name: _content(config[name]) for name in _SPECIAL_TOKENS if config.get(name)}
    return ChatTemplate(source, tokens, clock, tool_source)


def _by_name(template: str | list[dict[str, str]] | None) -> dict[str, str]:
    """Some models carry several templates: "default" is for plain chat, "tool_use" for tools."""
    if isinstance(template, list):
        return {entry["name"]: entry["template"] for entry in template}
    return {"default": template} if template else {}


def _content(token: str | dict[str, Any]) -> str:
    return token if isinstance(token, str) else str(token["content"])


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """Content given as a list of text parts becomes the one text that templates expect."""
    content = message.get("content")
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        return {**message, "content": "".join(str(part.get("text", "")) for part in content)}
    return message


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    """Jinja's own filter escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)
