"""The gateway's part of the API's OpenAPI document, made from the very structs that decode and encode."""

from typing import Any

import msgspec

from dockyard.errors import (
    DockyardError,
    Failed,
    Forbidden,
    Invalid,
    NotFound,
    Reason,
    TimedOut,
    TooMany,
    Unauthenticated,
    Unavailable,
)
from dockyard.gateway.openai_errors import OpenAIError, body_of, rendering
from dockyard.gateway.openai_replies import (
    ChatCompletion,
    ChatCompletionChunk,
    Completion,
    ServedModel,
    ServedModelList,
)
from dockyard.gateway.openai_wire import ChatCompletionRequest, CompletionRequest

REF = "#/components/schemas/{name}"
_SHAPES = (
    ChatCompletionRequest,
    ChatCompletion,
    ChatCompletionChunk,
    CompletionRequest,
    Completion,
    ServedModelList,
    ServedModel,
    OpenAIError,
)
_SECURITY = [{"x-api-key": []}, {"bearer": []}]

# One example per status that a route can answer, in the order of statuses.
_UNKNOWN_MODEL = NotFound("no deployment 'Flan T6' is served", reason=Reason.MODEL_NOT_SERVED, field="model")
_NO_KEY = Unauthenticated("a key is needed: send it as x-api-key")
_FAULT = Failed("a fault of the server's own; its log has more under request req-0b6c1f0e")
_GENERATION_ERRORS: tuple[DockyardError, ...] = (
    Invalid("temperature must be between 0 and 2, got 3", reason=Reason.OUT_OF_RANGE, field="temperature"),
    _NO_KEY,
    Forbidden("the key may not use 'Flan T5'; it needs the scope Infer, or to be a key of it"),
    _UNKNOWN_MODEL,
    TimedOut("the body did not come within 30 s; send it at once", reason=Reason.BODY_TOO_SLOW),
    Invalid("the body is larger than 8388608 bytes", reason=Reason.BODY_TOO_LARGE),
    Invalid("the body must be JSON: send content-type: application/json", reason=Reason.UNSUPPORTED_CONTENT_TYPE),
    TooMany("the queue of 'Flan T5' is full: 1000 requests wait for 2 replica(s)", reason=Reason.QUEUE_FULL),
    Failed("the engine failed 3 times on this request", reason=Reason.ENGINE_FAILED),
    Unavailable("the server is shutting down; try again", reason=Reason.DRAINING),
    TimedOut("no complete reply within the endpoint timeout of 'Flan T5', 60 s"),
)
_CHAT_EXAMPLE: dict[str, Any] = {
    "model": "Flan T5",
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "max_tokens": 16,
}
_TEXT_EXAMPLE: dict[str, Any] = {"model": "Flan T5", "prompt": "The capital of France is", "max_tokens": 16}
_USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
_CHAT_REPLY: dict[str, Any] = {
    "id": "chatcmpl-0b6c1f0e",
    "object": "chat.completion",
    "created": 1770292683,
    "model": "Flan T5",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "It is Paris.", "refusal": None},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ],
    "usage": _USAGE,
    "system_fingerprint": None,
}
_TEXT_REPLY: dict[str, Any] = {
    "id": "cmpl-0b6c1f0e",
    "object": "text_completion",
    "created": 1770292683,
    "model": "Flan T5",
    "choices": [{"index": 0, "text": " Paris.", "finish_reason": "stop", "logprobs": None}],
    "usage": _USAGE,
    "system_fingerprint": None,
}
_MODEL: dict[str, Any] = {
    "id": "Flan T5",
    "object": "model",
    "created": 1770292683,
    "owned_by": "dockyard",
    "deployment_id": "dp-5f8e1c0a-6a53-4b8e-9d68-2f0a4f1c7e11",
}


def openapi_fragment() -> dict[str, Any]:
    """`paths` and `components` (`schemas`, `securitySchemes`) to be merged into the whole document."""
    _, schemas = msgspec.json.schema_components(_SHAPES, ref_template=REF)
    chat = _generating("Chat", ChatCompletionRequest, _CHAT_EXAMPLE, ChatCompletion, _CHAT_REPLY, ChatCompletionChunk)
    text = _generating("Continue a text", CompletionRequest, _TEXT_EXAMPLE, Completion, _TEXT_REPLY, Completion)
    listing = {"object": "list", "data": [_MODEL]}
    return {
        "paths": {
            "/v1/chat/completions": {"post": {**chat, "operationId": "createChatCompletion"}},
            "/v2/chat/completions": {
                "post": {**chat, "operationId": "createChatCompletionV2", "summary": "Chat, by its published name"}
            },
            "/v1/completions": {"post": {**text, "operationId": "createCompletion"}},
            "/v1/models": {
                "get": {
                    **_reading("List what the key may use", ServedModelList, listing, (_NO_KEY, _FAULT)),
                    "operationId": "listServedModels",
                }
            },
            "/v1/models/{model}": {
                "get": {
                    **_reading("Show one deployment", ServedModel, _MODEL, (_NO_KEY, _UNKNOWN_MODEL, _FAULT)),
                    "operationId": "getServedModel",
                    "parameters": [
                        {
                            "name": "model",
                            "in": "path",
                            "required": True,
                            "description": "The deployment's name or `dp-` id.",
                            "schema": {"type": "string", "minLength": 1},
                            "example": "Flan T5",
                        }
                    ],
                }
            },
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _generating(
    summary: str, body: type, asks: dict[str, Any], whole: type, replies: dict[str, Any], chunk: type
) -> dict[str, Any]:
    described = (
        f"With `stream`: true the reply is `text/event-stream`: one `{chunk.__name__}` as JSON in each `data:` line, "
        'then `data: [DONE]`. An error after the first event comes as `data: {"error": …}`, without `[DONE]`.'
    )
    success = {
        "description": f"The whole reply, or the stream. {described}",
        "headers": _headers(),
        "content": {
            "application/json": {"schema": _ref(whole), "example": replies},
            "text/event-stream": {"schema": {"type": "string"}},
        },
    }
    return {
        "tags": ["Inference"],
        "summary": summary,
        "description": described,
        "security": _SECURITY,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _ref(body), "example": asks}},
        },
        "responses": {"200": success, **_errors(_GENERATION_ERRORS)},
    }


def _reading(summary: str, whole: type, example: dict[str, Any], errors: tuple[DockyardError, ...]) -> dict[str, Any]:
    success = {
        "description": "OK",
        "headers": _headers(),
        "content": {"application/json": {"schema": _ref(whole), "example": example}},
    }
    return {
        "tags": ["Inference"],
        "summary": summary,
        "security": _SECURITY,
        "responses": {"200": success, **_errors(errors)},
    }


def _errors(errors: tuple[DockyardError, ...]) -> dict[str, Any]:
    return {str(rendering(error).status): _error(error) for error in errors}


def _error(error: DockyardError) -> dict[str, Any]:
    retry = rendering(error).status in (429, 503)
    return {
        "description": (type(error).__doc__ or "").strip(),
        "headers": {**_headers(), **({"retry-after": _header("integer", "Seconds to wait.")} if retry else {})},
        "content": {"application/json": {"schema": _ref(OpenAIError), "example": msgspec.to_builtins(body_of(error))}},
    }


def _headers() -> dict[str, Any]:
    return {"x-request-id": _header("string", "The client's own, or one that was made; it is in the log line.")}


def _header(kind: str, description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": kind}}


def _ref(shape: type) -> dict[str, str]:
    return {"$ref": REF.format(name=shape.__name__)}
