"""From a request to the prompt's ids, checked against the served context; and to what calls of tools look like."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from dockyard.clock import SystemClock
from dockyard.domain.card import Family
from dockyard.errors import Invalid, Reason
from dockyard.protocols.generation import GenerateRequest, WorkerSpec
from dockyard.worker.tokenizer import Tokenizer
from dockyard.worker.tool_calls import ToolCalls, speaks_of_tools
from dockyard.worker.tool_calls_choice import schema_of_call
from dockyard.worker.tool_calls_formats import FORMATS, PLAIN, ToolFormat


class Template(Protocol):
    """`chat_template.ChatTemplate` as it is used here."""

    reads_tools: bool
    tool_format: ToolFormat | None

    def render(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] = ()) -> str: ...


class Prompts:
    """`context_length` bounds prompt and output together for a decoder, the prompt alone for an encoder-decoder."""

    def __init__(
        self, tokenizer: Tokenizer, template: Template | None, *, family: str, context_length: int | None
    ) -> None:
        self.has_chat_template = template is not None
        self._tokenizer = tokenizer
        self._template = template
        form = template.tool_format if template is not None else None
        self.tool_marks: Mapping[int, str] = tokenizer.special_ids(form.marks) if form is not None else {}
        self._decoder = family == Family.DECODER
        self._context_length = context_length

    def ids_of(self, request: GenerateRequest) -> list[int]:
        """The prompt's ids. Raises `Invalid`: no prompt, an empty or too long one, or chat without a template."""
        given = [value for value in (request.prompt, request.prompt_ids, request.messages) if value is not None]
        if len(given) != 1:
            raise Invalid(
                f"exactly one of prompt, prompt_ids and messages must be set, got {len(given)}",
                reason=Reason.MISSING_FIELD,
                field="prompt",
            )
        ids = self._encode(request)
        if not ids:
            raise Invalid("the prompt is empty: it must have at least one token", field="prompt")
        if self._context_length is not None and len(ids) >= self._context_length + (not self._decoder):
            raise Invalid(
                f"the prompt has {len(ids)} tokens and max_tokens is {request.max_tokens}; "
                f"the deployment serves a context of {self._context_length} tokens: shorten the prompt",
                reason=Reason.CONTEXT_LENGTH_EXCEEDED,
                field="messages" if request.messages is not None else "prompt",
            )
        return ids

    def max_tokens(self, prompt_tokens: int, asked: int) -> int:
        """`asked`, or what the context has room for."""
        if self._context_length is None:
            return asked
        if not self._decoder:  # BART and its kin: the output has as many positions as the prompt, two for its start
            return min(asked, max(1, self._context_length - 2))
        return min(asked, self._context_length - prompt_tokens)

    def tool_calls(self, request: GenerateRequest) -> ToolCalls | None:
        """What finds the calls in the text, where there are tools. Raises `Invalid` if their form is not known."""
        if not request.tools or self._template is None:
            return None
        form = self._form(request, self._template)
        offered = {tool["function"]["name"] for tool in request.tools}
        most = None if request.parallel_tool_calls else 1
        begun = request.tool_choice == "required" and bool(form.begin)
        return ToolCalls(form, request.id, offered, begun=begun, most=most)

    def call_schema(self, request: GenerateRequest) -> str | None:
        """The JSON schema that the text is held to where a call is demanded."""
        if not request.tools or self._template is None or request.tool_choice != "required":
            return None
        form = self._form(request, self._template)
        schema = schema_of_call(form, request.tools, name=request.tool_name, parallel=request.parallel_tool_calls)
        return json.dumps(schema)

    def _form(self, request: GenerateRequest, template: Template) -> ToolFormat:
        """A demanded call needs no form that is known: it is held to one."""
        if not template.reads_tools:
            raise _no_place_for_tools("tools")
        if template.tool_format is not None:
            return template.tool_format
        if request.tool_choice == "required":
            return PLAIN
        known = ", ".join(form.name for form in FORMATS)
        raise Invalid(
            f"the model's chat template writes calls of tools in a form that is not known here (known: {known}); leave "
            "tools out, or send tool_choice 'none'",
            reason=Reason.TOOL_FORMAT_UNKNOWN,
            field="tools",
        )

    def _encode(self, request: GenerateRequest) -> list[int]:
        if request.prompt is not None:
            return self._tokenizer.encode(request.prompt, special=True)
        if request.messages is not None:
            return self._tokenizer.encode(self._chat(request, request.messages), special=False)
        ids = request.prompt_ids or []
        if any(not 0 <= i < self._tokenizer.vocab_size for i in ids):
            raise Invalid(
                f"prompt_ids must be between 0 and {self._tokenizer.vocab_size - 1}, got {min(ids)} to {max(ids)}",
                reason=Reason.OUT_OF_RANGE,
                field="prompt",
            )
        return ids

    def _chat(self, request: GenerateRequest, messages: list[dict[str, Any]]) -> str:
        if self._template is None:
            raise Invalid(
                "the model has no chat template; send the text to /v1/completions instead",
                reason=Reason.NO_CHAT_TEMPLATE,
                field="messages",
            )
        if not self._template.reads_tools and speaks_of_tools(messages):
            raise _no_place_for_tools("messages")
        begin = ""
        if request.tools and request.tool_choice == "required":
            begin = self._form(request, self._template).begin
        return self._template.render(messages, request.tools) + begin


def _no_place_for_tools(field: str) -> Invalid:
    return Invalid(
        "the model's chat template has no place for tools: leave tools and the turns that use them out, or import the "
        "model with a chat_template.jinja that reads `tools`",
        reason=Reason.TEMPLATE_WITHOUT_TOOLS,
        field=field,
    )


def load_prompts(spec: WorkerSpec, tokenizer: Tokenizer) -> Prompts:
    """What the model's folder says about prompts. Jinja is imported only where there is a template."""
    folder = Path(spec.model_dir)
    template: Template | None = None
    if _mentions_template(folder):
        from dockyard.worker.chat_template import find_chat_template

        template = find_chat_template(folder, SystemClock())
    return Prompts(tokenizer, template, family=spec.family, context_length=spec.context_length)


def _mentions_template(folder: Path) -> bool:
    config = folder / "tokenizer_config.json"
    return (folder / "chat_template.jinja").exists() or (
        config.exists() and "chat_template" in config.read_text("utf-8")
    )
