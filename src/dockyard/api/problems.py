"""Errors on the wire: which kind is which HTTP status, and the one shape in which all of them are told."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from dockyard.api.file_reply import RangeNotSatisfiable
from dockyard.api.wire.fields import printable, shortened, shown
from dockyard.errors import DockyardError, Failed, Invalid, Problem, Reason

STATUS: Mapping[str, int] = {
    "invalid": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "conflict": 409,
    "body_too_large": 413,
    "unsupported_content_type": 415,
    "range_not_satisfiable": 416,
    "too_many": 429,
    "internal": 500,
    "failed": 500,
    "unavailable": 503,
    "timed_out": 504,
}
MOST_PROBLEMS = 50  # told of one request
LONGEST_MESSAGE = 1000  # characters; an id in a path may be as long as a client likes
CLIENT_GONE = 499  # in the log only: nobody reads the reply

_log = structlog.get_logger("dockyard.api")


class MethodNotAllowed(DockyardError):
    """The route does not know the method."""

    kind = "method_not_allowed"
    default_reason = Reason.METHOD_NOT_ALLOWED


class RouteNotFound(DockyardError):
    """There is no such route; /docs lists them."""

    kind = "not_found"
    default_reason = Reason.NOT_FOUND


def render(error: DockyardError, request_id: str) -> JSONResponse:
    """The reply that tells `error`. Of a fault of the server's own it tells the request id only."""
    code = STATUS[error.kind]
    problems = error.problems if code != 500 else (_fault(request_id),)
    listed = [_entry(problem, code) for problem in problems[:MOST_PROBLEMS]]
    return JSONResponse({"errors": listed}, status_code=code, headers=_headers(error, code))


def problems_of(errors: Iterable[Mapping[str, Any]]) -> tuple[Problem, ...]:
    """What pydantic found wrong with a request, path, query and body together."""
    return tuple(_problem(error) for error in errors)


def install_handlers(app: FastAPI, allowed_at: Callable[[str], Sequence[str]]) -> None:
    """Have every error of `app` told in the one shape. `allowed_at(path)`: the methods that a 405 lists."""

    async def on_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, DockyardError)
        if STATUS[error.kind] == 500:
            _log.error("request_failed", exc_info=error)
        return render(error, request.state.request_id)

    async def on_invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return render(Invalid(problems=problems_of(error.errors())), request.state.request_id)

    async def on_http(request: Request, error: Exception) -> Response:
        """What the router itself refuses: no such route, or not with this method."""
        assert isinstance(error, HTTPException)
        called = f"{request.method} {shortened(request.url.path)}"
        if error.status_code == 405:
            allow = ", ".join(allowed_at(request.scope["path"]))
            reply = render(MethodNotAllowed(f"{called} is not possible; allowed: {allow}"), request.state.request_id)
            reply.headers["allow"] = allow
            return reply
        return render(RouteNotFound(f"there is no route {called}; /docs lists them"), request.state.request_id)

    async def on_gone(request: Request, error: Exception) -> Response:
        return Response(status_code=CLIENT_GONE)

    async def on_fault(request: Request, error: Exception) -> Response:
        return render(Failed(), request.state.request_id)

    app.add_exception_handler(DockyardError, on_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(ClientDisconnect, on_gone)
    app.add_exception_handler(Exception, on_fault)


def _problem(error: Mapping[str, Any]) -> Problem:
    path = _path(error["loc"][1:])
    subject = path or "the body"
    kind = error["type"]
    if kind == "missing":
        return Problem(f"{subject} is required", Reason.MISSING_FIELD, path)
    if kind in Reason.__members__:
        return Problem(f"{subject} {error['ctx']['sentence']}", Reason(kind), path)
    if kind == "string_unicode":  # pydantic's word for a name of a field that no UTF-8 can carry
        return Problem(f"{subject} holds half of a surrogate pair, which is no character", Reason.BAD_FORMAT, path)
    return Problem(f"{subject} cannot be read, got {shown(error.get('input'))}", Reason.BAD_FORMAT, path)


def _path(loc: Sequence[str | int]) -> str | None:
    """`hyperParameters.stopSequence[3]`, in the spelling of the wire."""
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc)
    return path.removeprefix(".") or None


def _entry(problem: Problem, code: int) -> dict[str, Any]:
    return {
        "msg": _bounded(problem.msg),
        "code": code,
        "reason": problem.reason,
        "field": None if problem.field is None else _bounded(problem.field),
    }


def _bounded(text: str) -> str:
    text = printable(text)
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]}…"


def _fault(request_id: str) -> Problem:
    return Problem(f"a fault of the server's own; its log has more under request {request_id}", Reason.INTERNAL)


def _headers(error: DockyardError, code: int) -> dict[str, str]:
    if code in (429, 503):
        return {"retry-after": str(max(1, math.ceil(error.retry_after_s or 1)))}
    if isinstance(error, RangeNotSatisfiable):
        return {"content-range": f"bytes */{error.size}"}
    if code == 401:
        return {"www-authenticate": 'ApiKey realm="dockyard"'}
    return {}
