"""What clients receive: whole replies, stream chunks and model lists, in OpenAI's exact shapes."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import msgspec
from msgspec import UNSET, UnsetType

from dockyard.gateway.openai_logprobs import ChatLogprobs, TextLogprobs, TextOffsets, chat_logprobs
from dockyard.protocols.generation import FinishReason, TokenLogprob, ToolCall, Usage
from dockyard.protocols.routing import Route

DONE = b"data: [DONE]\n\n"
_encode = msgspec.json.Encoder().encode


class TokenUsage(msgspec.Struct):
    """Counts of real tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class FunctionCall(msgspec.Struct):
    """`arguments` is the text of a JSON object."""

    name: str
    arguments: str


class ToolCallOut(msgspec.Struct):
    """A call that the model wants made."""

    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class AssistantMessage(msgspec.Struct):
    """The reply. `content` is null only where there is nothing but `tool_calls`, which are absent if there are none."""

    content: str | None
    role: Literal["assistant"] = "assistant"
    refusal: None = None
    tool_calls: list[ToolCallOut] | UnsetType = UNSET


class ChatChoice(msgspec.Struct):
    """One reply of a chat."""

    index: int
    message: AssistantMessage
    finish_reason: FinishReason
    logprobs: ChatLogprobs | None = None


class ChatCompletion(msgspec.Struct):
    """A chat's whole reply."""

    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: TokenUsage
    object: Literal["chat.completion"] = "chat.completion"
    system_fingerprint: str | None = None


class ToolCallDelta(msgspec.Struct):
    """A whole call; `index` is its place among the calls of its choice."""

    index: int
    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class Delta(msgspec.Struct, omit_defaults=True):
    """What a chunk adds; the first one only tells the role, the last one is empty."""

    role: str | None = None
    content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChunkChoice(msgspec.Struct):
    """What a chunk adds to one reply of a chat."""

    index: int
    delta: Delta
    finish_reason: FinishReason | None = None
    logprobs: ChatLogprobs | None = None


class ChatCompletionChunk(msgspec.Struct):
    """One event of a chat's stream. `usage` is there only with `include_usage`, and null in all events but the last."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: TokenUsage | UnsetType | None = UNSET
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    system_fingerprint: str | None = None


class TextChoice(msgspec.Struct):
    """One prompt's continuation, or a piece of it."""

    index: int
    text: str
    finish_reason: FinishReason | None = None
    logprobs: TextLogprobs | None = None


class Completion(msgspec.Struct):
    """A completion's whole reply, or one event of its stream (then `usage` is as in a chat's)."""

    id: str
    created: int
    model: str
    choices: list[TextChoice]
    usage: TokenUsage | UnsetType | None = UNSET
    object: Literal["text_completion"] = "text_completion"
    system_fingerprint: str | None = None


class ServedModel(msgspec.Struct):
    """A deployment that the key may use. `id` is its name."""

    id: str
    created: int
    deployment_id: str
    object: Literal["model"] = "model"
    owned_by: str = "dockyard"


class ServedModelList(msgspec.Struct):
    """The deployments that the key may use."""

    data: list[ServedModel]
    object: Literal["list"] = "list"


class Told(Protocol):
    """What a finished generation leaves for its reply."""

    index: int
    finish: FinishReason | None
    calls: list[ToolCall]
    logprobs: list[TokenLogprob]

    @property
    def text(self) -> str: ...


class Shape(Protocol):
    """How one of the two routes says the same things."""

    def opening(self, index: int) -> bytes:
        """The event that comes before the first piece; empty if the route has none."""
        ...

    def piece(self, index: int, text: str, logprobs: Sequence[TokenLogprob] = ()) -> bytes: ...

    def calls(self, index: int, calls: Sequence[ToolCall], first: int) -> bytes:
        """Calls of tools, the `first` of which is so many-th of its choice; only chats have any."""
        ...

    def ending(self, index: int, finish: FinishReason) -> bytes: ...

    def counts(self, usage: TokenUsage) -> bytes:
        """The event with the counts; empty unless they were asked for."""
        ...

    def whole(self, told: Sequence[Told], usage: TokenUsage) -> bytes: ...


class ChatShape:
    """`/v1/chat/completions`."""

    prefix = "chatcmpl-"

    def __init__(self, reply_id: str, created: int, model: str, *, include_usage: bool = False) -> None:
        self._head: tuple[str, int, str] = (reply_id, created, model)
        self._no_usage = None if include_usage else UNSET

    def opening(self, index: int) -> bytes:
        return self._chunk([ChunkChoice(index, Delta(role="assistant", content=""))])

    def piece(self, index: int, text: str, logprobs: Sequence[TokenLogprob] = ()) -> bytes:
        return self._chunk([ChunkChoice(index, Delta(content=text), logprobs=chat_logprobs(logprobs))])

    def calls(self, index: int, calls: Sequence[ToolCall], first: int) -> bytes:
        deltas = [
            ToolCallDelta(number, call.id, FunctionCall(call.name, call.arguments))
            for number, call in enumerate(calls, first)
        ]
        return self._chunk([ChunkChoice(index, Delta(tool_calls=deltas))])

    def ending(self, index: int, finish: FinishReason) -> bytes:
        return self._chunk([ChunkChoice(index, Delta(), finish)])

    def counts(self, usage: TokenUsage) -> bytes:
        return event(ChatCompletionChunk(*self._head, [], usage)) if self._no_usage is None else b""

    def whole(self, told: Sequence[Told], usage: TokenUsage) -> bytes:
        choices = [
            ChatChoice(one.index, _message(one), one.finish or "stop", chat_logprobs(one.logprobs)) for one in told
        ]
        return _encode(ChatCompletion(*self._head, choices, usage))

    def _chunk(self, choices: list[ChunkChoice]) -> bytes:
        return event(ChatCompletionChunk(*self._head, choices, self._no_usage))


class TextShape:
    """`/v1/completions`."""

    prefix = "cmpl-"

    def __init__(self, reply_id: str, created: int, model: str, *, include_usage: bool = False) -> None:
        self._head: tuple[str, int, str] = (reply_id, created, model)
        self._no_usage = None if include_usage else UNSET
        self._offsets: dict[int, TextOffsets] = {}  # of streams with logprobs, by choice

    def opening(self, index: int) -> bytes:
        return b""

    def piece(self, index: int, text: str, logprobs: Sequence[TokenLogprob] = ()) -> bytes:
        told = self._offsets.setdefault(index, TextOffsets()).told(logprobs) if logprobs else None
        return event(Completion(*self._head, [TextChoice(index, text, logprobs=told)], self._no_usage))

    def calls(self, index: int, calls: Sequence[ToolCall], first: int) -> bytes:
        return b""

    def ending(self, index: int, finish: FinishReason) -> bytes:
        return event(Completion(*self._head, [TextChoice(index, "", finish)], self._no_usage))

    def counts(self, usage: TokenUsage) -> bytes:
        return event(Completion(*self._head, [], usage)) if self._no_usage is None else b""

    def whole(self, told: Sequence[Told], usage: TokenUsage) -> bytes:
        choices = [TextChoice(one.index, one.text, one.finish, TextOffsets().told(one.logprobs)) for one in told]
        return _encode(Completion(*self._head, choices, usage))


def event(value: Any) -> bytes:
    """One server-sent event."""
    return b"data: %b\n\n" % _encode(value)


def total(usages: Sequence[Usage | None], rows: int) -> TokenUsage:
    """Each prompt counts once, however many `rows` of it there are; every row's own tokens count."""
    prompt = sum(usage.prompt_tokens for usage in usages[::rows] if usage is not None)
    completion = sum(usage.completion_tokens for usage in usages if usage is not None)
    return TokenUsage(prompt, completion, prompt + completion)


def _message(told: Told) -> AssistantMessage:
    if not told.calls:
        return AssistantMessage(told.text)
    calls = [ToolCallOut(call.id, FunctionCall(call.name, call.arguments)) for call in told.calls]
    return AssistantMessage(told.text or None, tool_calls=calls)


def served_model(route: Route) -> ServedModel:
    return ServedModel(route.name, int(route.created_at.timestamp()), route.deployment_id)
