"""Renders chat messages with a model's own Jinja template, in the sandbox and with the names that templates expect."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from dockyard.clock import Clock
from dockyard.errors import Invalid
from dockyard.template_sandbox import TemplateSandbox

_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_REFUSALS = (jinja2.TemplateError, TypeError, LookupError, ValueError, AttributeError, ArithmeticError)


class ChatTemplate:
    """Filters and names as Transformers sets them up (`utils/chat_template_utils.py`)."""

    def __init__(self, source: str, special_tokens: dict[str, str], clock: Clock) -> None:
        environment = TemplateSandbox()
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda form: clock.now().strftime(form)
        self._template = environment.from_string(source)
        self._special_tokens = special_tokens

    def render(self, messages: Sequence[dict[str, Any]]) -> str:
        """The prompt, up to where the assistant speaks. Raises `Invalid` with what the template says is wrong."""
        try:
            return self._template.render(
                messages=[_plain(message) for message in messages],
                add_generation_prompt=True,
                tools=None,
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
    source = file.read_text("utf-8") if file.exists() else _default(config.get("chat_template"))
    if not source:
        return None
    tokens = {name: _content(config[name]) for name in _SPECIAL_TOKENS if config.get(name)}
    return ChatTemplate(source, tokens, clock)


def _default(template: str | list[dict[str, str]] | None) -> str | None:
    """Some models carry several named templates; the one named "default" is for plain chat."""
    if isinstance(template, list):
        return next((entry["template"] for entry in template if entry["name"] == "default"), None)
    return template


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
