"""The one table that turns a `DockyardError` into a status and OpenAI's error body."""

from typing import NamedTuple

import msgspec

from dockyard.errors import DockyardError, Reason


class Rendering(NamedTuple):
    status: int
    type: str


BY_KIND: dict[str, Rendering] = {
    "invalid": Rendering(400, "invalid_request_error"),
    "unauthenticated": Rendering(401, "authentication_error"),
    "forbidden": Rendering(403, "permission_error"),
    "not_found": Rendering(404, "not_found_error"),
    "conflict": Rendering(409, "conflict_error"),
    "too_many": Rendering(429, "rate_limit_error"),
    "failed": Rendering(500, "server_error"),
    "internal": Rendering(500, "server_error"),
    "unavailable": Rendering(503, "server_error"),
    "timed_out": Rendering(504, "timeout_error"),
}
# Where one kind has several statuses.
BY_REASON: dict[Reason, Rendering] = {
    Reason.METHOD_NOT_ALLOWED: Rendering(405, "invalid_request_error"),
    Reason.BODY_TOO_SLOW: Rendering(408, "timeout_error"),
    Reason.BODY_TOO_LARGE: Rendering(413, "invalid_request_error"),
    Reason.UNSUPPORTED_CONTENT_TYPE: Rendering(415, "invalid_request_error"),
}
# OpenAI's own spelling, where clients look for it.
CODES: dict[Reason, str] = {Reason.MODEL_NOT_SERVED: "model_not_found"}


class OpenAIErrorDetail(msgspec.Struct):
    """`code` is a stable reason, `param` the field that is wrong, if it is one field."""

    message: str
    type: str
    param: str | None
    code: str


class OpenAIError(msgspec.Struct):
    """Every error of these routes."""

    error: OpenAIErrorDetail


def rendering(error: DockyardError) -> Rendering:
    return BY_REASON.get(error.reason) or BY_KIND.get(error.kind, BY_KIND["internal"])


def body_of(error: DockyardError) -> OpenAIError:
    """All problems in one message, since the shape has room for one; `param` and `code` are the first one's."""
    message = "; ".join(problem.msg for problem in error.problems)
    first = error.problems[0]
    code = CODES.get(error.reason, str(error.reason))
    return OpenAIError(OpenAIErrorDetail(message, rendering(error).type, first.field, code))
