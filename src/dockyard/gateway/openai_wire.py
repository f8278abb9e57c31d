"""The bodies that clients send, field by field, and how they are decoded. What the values may be: `openai_checks`."""

import difflib
import re
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta

from dockyard.errors import Invalid, Problem, Reason

# Fields that change nothing about the text: taken and not used.
# `Annotated` types are cached by equality, and False == 0: a text of its own keeps the two apart in the schema.
NOT_OFFERED = "Not offered; only false, which means the same as leaving it out."
Inert = Annotated[Any, Meta(description="Accepted and not used: it does not change the output.")]


def _neutral(
    *values: Any, doc: str = "Not offered; only the values listed, which mean the same as leaving it out."
) -> Any:
    return Meta(description=doc, extra_json_schema={"enum": [None, *values]})


def _number(low: float, high: float, doc: str) -> Any:
    return Meta(description=doc, extra_json_schema={"minimum": low, "maximum": high})


class StreamOptions(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`include_usage`: one more chunk before `[DONE]` with the counts of tokens."""

    include_usage: bool | None = None
    include_obfuscation: Inert = None


class ContentPart(msgspec.Struct, kw_only=True):
    """A part of a message. Only `text` parts are understood."""

    type: Annotated[str, Meta(extra_json_schema={"enum": ["text"]})]
    text: str | None = None


class CalledFunction(msgspec.Struct, kw_only=True):
    """`arguments` is the text of a JSON object."""

    name: str
    arguments: str


class CalledTool(msgspec.Struct, kw_only=True):
    """A call that the assistant made, as it came in a reply."""

    id: str
    function: CalledFunction
    type: Annotated[str, Meta(extra_json_schema={"enum": ["function"]})] = "function"


class ChatMessage(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One turn of the conversation. `content` may be left out beside `tool_calls` only."""

    role: Annotated[str, Meta(extra_json_schema={"enum": ["system", "developer", "user", "assistant", "tool"]})]
    content: str | list[ContentPart] | None = None
    name: Inert = None
    refusal: Annotated[Any, _neutral()] = None
    annotations: Inert = None
    audio: Annotated[Any, _neutral()] = None
    function_call: Annotated[Any, _neutral()] = None
    tool_calls: list[CalledTool] | None = None
    tool_call_id: Annotated[str | None, Meta(description="Of a turn of the role `tool`: which call it answers.")] = None


class ToolFunction(msgspec.Struct, kw_only=True):
    """`parameters` is a JSON Schema of an object; left out, the function takes none."""

    name: Annotated[str, Meta(description="1 to 64 letters, digits, `_` and `-`.")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: Annotated[bool | None, Meta(description="The schema is enforced where `tool_choice` demands a call.")] = (
        None
    )


class Tool(msgspec.Struct, kw_only=True):
    """A function that the model may call."""

    type: Annotated[str, Meta(extra_json_schema={"enum": ["function"]})]
    function: ToolFunction | None = None


class NamedFunction(msgspec.Struct, kw_only=True):
    """One of `tools`, by its name."""

    name: str


class NamedTool(msgspec.Struct, kw_only=True):
    """The tool that is to be called."""

    type: Annotated[str, Meta(extra_json_schema={"enum": ["function"]})]
    function: NamedFunction | None = None


class JsonSchemaFormat(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`schema` is a JSON Schema; it is always enforced, also where `strict` is not true."""

    name: Annotated[str | None, Meta(description="1 to 64 letters, digits, `_` and `-`; required.")] = None
    schema: Annotated[dict[str, Any] | None, Meta(description="At most 64 KiB; required.")] = None
    strict: Inert = None
    description: Inert = None


class ResponseFormat(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What the reply must be. Where `tools` are given, too, they win, and the format is not enforced."""

    type: Annotated[str, Meta(extra_json_schema={"enum": ["text", "json_object", "json_schema"]})]
    json_schema: JsonSchemaFormat | None = None


class Sampling(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What both routes take. Whatever is left out or null comes from the deployment's hyperparameters."""

    model: Annotated[str, Meta(description="The deployment's name or `dp-` id.", examples=["Flan T5"])]
    temperature: Annotated[float | None, _number(0, 2, "0 is greedy.")] = None
    top_p: Annotated[float | None, _number(0, 1, "0 keeps the single most probable token.")] = None
    top_k: Annotated[int | None, _number(1, 100, "Sample from the k most probable tokens.")] = None
    max_tokens: Annotated[int | None, _number(0, 512, "At most the deployment's `maxTokens`.")] = None
    max_completion_tokens: Annotated[int | None, _number(0, 512, "Another name of `max_tokens`.")] = None
    stop: Annotated[
        str | list[str] | None,
        Meta(description="One sequence, or up to 16 of 1 to 256 characters; replaces the deployment's own."),
    ] = None
    seed: Annotated[int | None, Meta(description="Same seed, same text, where the engine can.")] = None
    n: Annotated[int | None, _number(1, 16, "Replies to the same prompt, each a choice.")] = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logit_bias: Annotated[Any, _neutral({})] = None
    presence_penalty: Annotated[Any, _neutral(0)] = None
    frequency_penalty: Annotated[Any, _neutral(0)] = None
    repetition_penalty: Annotated[Any, _neutral(1)] = None
    min_p: Annotated[Any, _neutral(0)] = None
    response_format: Annotated[ResponseFormat | None, Meta(description="JSON only, where the engine can.")] = None
    user: Inert = None
    metadata: Inert = None
    store: Inert = None
    service_tier: Inert = None
    safety_identifier: Inert = None
    prompt_cache_key: Inert = None
    prompt_cache_retention: Inert = None


class ChatCompletionRequest(Sampling, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Meta(extra_json_schema={"minItems": 1})]
    logprobs: Annotated[bool | None, Meta(description="Tell each token's, where the engine can.")] = None
    top_logprobs: Annotated[int | None, _number(0, 20, "With `logprobs`: the most probable tokens, too.")] = None
    tools: Annotated[list[Tool] | None, Meta(description="At most 128, of 256 KiB together.")] = None
    tool_choice: Annotated[
        str | NamedTool | None, Meta(description="`none`, `auto` (if left out), `required`, or the tool to be called.")
    ] = None
    functions: Annotated[Any, _neutral([])] = None
    function_call: Annotated[Any, _neutral("none", "auto")] = None
    modalities: Annotated[Any, _neutral(["text"])] = None
    audio: Annotated[Any, _neutral()] = None
    prediction: Annotated[Any, _neutral()] = None
    reasoning_effort: Annotated[Any, _neutral("none")] = None
    verbosity: Annotated[Any, _neutral("medium")] = None
    web_search_options: Annotated[Any, _neutral()] = None
    parallel_tool_calls: Annotated[bool | None, Meta(description="False: one call at most in a reply.")] = None


class CompletionRequest(Sampling, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/completions`."""

    prompt: Annotated[
        str | list[str | int | list[int]],
        Meta(description="A text, a list of texts (one choice each), a list of token ids, or a list of such lists."),
    ]
    logprobs: Annotated[
        int | bool | None,
        Meta(description="0 to 5: tell each token's and those of so many of the most probable, where the engine can."),
    ] = None
    echo: Annotated[Any, _neutral(False, doc=NOT_OFFERED)] = None
    best_of: Annotated[int | None, _number(1, 16, "Replies made, of which the best `n` are sent.")] = None
    suffix: Annotated[Any, _neutral("")] = None


class _Model(msgspec.Struct):
    model: Any = None


_R = TypeVar("_R", bound=Sampling)
_model_only = msgspec.json.Decoder(_Model)
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<field>[^`]*)`(?: - at `\$\.?(?P<at>.*)`)?$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<field>[^`]*)`(?: - at `\$\.?(?P<at>.*)`)?$", re.DOTALL)
_TYPE = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<at>.*)`)?$", re.DOTALL)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class BodyDecoder(Generic[_R]):
    """Strict JSON to one of the structs above. Raises `Invalid` with the field that is wrong."""

    def __init__(self, shape: type[_R]) -> None:
        self._decoder = msgspec.json.Decoder(shape)
        self._fields = shape.__struct_fields__

    def decode(self, body: bytes) -> _R:
        try:
            return self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise Invalid(problems=(self._problem(str(error)),)) from error
        except _UNREADABLE as error:
            raise Invalid(
                f"the body is no readable JSON: {_first_line(error)}; send one UTF-8 JSON object",
                reason=Reason.UNREADABLE_JSON,
            ) from error

    def _problem(self, told: str) -> Problem:
        if match := _UNKNOWN.match(told):
            field = _joined(match["at"], match["field"])
            near = difflib.get_close_matches(match["field"], _fields_at(match["at"], self._fields), n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            return Problem(f"unrecognized field '{field}'{hint}", Reason.BAD_FORMAT, field)
        if match := _MISSING.match(told):
            field = _joined(match["at"], match["field"])
            return Problem(f"{field} is required", Reason.MISSING_FIELD, field)
        match = _TYPE.match(told)
        field, what = (match["at"] or None, match["what"]) if match else (None, told)
        what = what[:1].lower() + what[1:].replace("`", "")
        reason = Reason.OUT_OF_RANGE if "out of range" in what else Reason.WRONG_TYPE
        return Problem(f"{field or 'the body'}: {what}", reason, field)


def named_model(body: bytes) -> str | None:
    """The model that a body names, when the rest of it may be wrong; None if that cannot be told either."""
    try:
        model = _model_only.decode(body).model
    except _UNREADABLE:
        return None
    return model if isinstance(model, str) else None


def _fields_at(at: str | None, top: tuple[str, ...]) -> tuple[str, ...]:
    if not at:
        return top
    return ChatMessage.__struct_fields__ if at.startswith("messages") else StreamOptions.__struct_fields__


def _joined(at: str | None, field: str) -> str:
    return f"{at}.{field}" if at else field


def _first_line(error: BaseException) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error).partition("\n")[0]
