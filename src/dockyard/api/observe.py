"""The outermost layer: a request id on every reply, in every log line, and one line per request."""

import re
import uuid

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dockyard.clock import Clock

HEADER = b"x-request-id"
_VISIBLE = re.compile(rb"[\x21-\x7e]{1,128}")

_log = structlog.get_logger("dockyard.access")


class Observed:
    """An ASGI app around another: names each request, logs its end, and lets no exception out."""

    def __init__(self, app: ASGIApp, clock: Clock) -> None:
        self._app = app
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        request_id = state["request_id"] = _request_id(scope)
        began = self._clock.monotonic()
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                others = [(name, value) for name, value in message.get("headers", ()) if name.lower() != HEADER]
                message = {**message, "headers": [*others, (HEADER, request_id.encode())]}
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_named)
            except Exception:  # noqa: BLE001 the last layer: beyond it is only the server's own log
                # Starlette has replied with a 500, unless another reply had begun, and raises it again for the log.
                _log.exception("request_crashed")
            finally:
                caller = state.get("caller")
                _log.info(
                    "request",
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    ms=round((self._clock.monotonic() - began) * 1000, 1),
                    key_id=caller.key_id if caller else None,
                )


def _request_id(scope: Scope) -> str:
    """The client's own, if it is 1–128 visible ASCII characters, else a new one."""
    for name, value in scope["headers"]:
        if name == HEADER and _VISIBLE.fullmatch(value):
            return value.decode("ascii")
    return f"req-{uuid.uuid4().hex}"
