"""From a request to the prompt's ids, checked against the served context."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dockyard.clock import SystemClock
from dockyard.domain.card import Family
from dockyard.errors import Invalid, Reason
from dockyard.protocols.generation import GenerateRequest, WorkerSpec
from dockyard.worker.tokenizer import Tokenizer

# A chat template as it is used here: messages in, prompt out.
Render = Callable[[list[dict[str, Any]]], str]


class Prompts:
    """`context_length` bounds prompt and output together for a decoder, the prompt alone for an encoder-decoder."""

    def __init__(self, tokenizer: Tokenizer, render: Render | None, *, family: str, context_length: int | None) -> None:
        self.has_chat_template = render is not None
        self._tokenizer = tokenizer
        self._render = render
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

    def _encode(self, request: GenerateRequest) -> list[int]:
        if request.prompt is not None:
            return self._tokenizer.encode(request.prompt, special=True)
        if request.messages is not None:
            return self._tokenizer.encode(self._chat(request.messages), special=False)
        ids = request.prompt_ids or []
        if any(not 0 <= i < self._tokenizer.vocab_size for i in ids):
            raise Invalid(
                f"prompt_ids must be between 0 and {self._tokenizer.vocab_size - 1}, got {min(ids)} to {max(ids)}",
                reason=Reason.OUT_OF_RANGE,
                field="prompt",
            )
        return ids

    def _chat(self, messages: list[dict[str, Any]]) -> str:
        if self._render is None:
            raise Invalid(
                "the model has no chat template; send the text to /v1/completions instead",
                reason=Reason.NO_CHAT_TEMPLATE,
                field="messages",
            )
        return self._render(messages)


def load_prompts(spec: WorkerSpec, tokenizer: Tokenizer) -> Prompts:
    """What the model's folder says about prompts. Jinja is imported only where there is a template."""
    folder = Path(spec.model_dir)
    render: Render | None = None
    if _mentions_template(folder):
        from dockyard.worker.chat_template import find_chat_template

        template = find_chat_template(folder, SystemClock())
        render = template.render if template else None
    return Prompts(tokenizer, render, family=spec.family, context_length=spec.context_length)


def _mentions_template(folder: Path) -> bool:
    config = folder / "tokenizer_config.json"
    return (folder / "chat_template.jinja").exists() or (
        config.exists() and "chat_template" in config.read_text("utf-8")
    )
