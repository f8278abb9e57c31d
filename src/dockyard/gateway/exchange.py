"""One HTTP request and its reply in terms of ASGI: head, body, a client that goes away, whole replies, streams."""

import asyncio
import re
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any

from dockyard.errors import Invalid, Reason, TimedOut
from dockyard.gateway.random_ids import random_id

Scope = MutableMapping[str, Any]

GONE_STATUS = 499  # in log and metrics only: the client went away before the reply
BODY_S = 30.0  # for a body to come; whoever sends one byte now and then holds no request open
WATCH_AFTER_S = 0.01  # a client that leaves sooner is noticed then
FAREWELL_S = 5.0  # for the last event of a stream that failed, should the client not read
_VISIBLE = re.compile(rb"[!-~]{1,128}")
_JSON_TYPE = re.compile(rb"application/(?:[\w.+-]+\+)?json\s*(?:;.*)?", re.IGNORECASE)


class ClientGone(Exception):
    """The client closed the connection; there is nobody to reply to."""


class Exchange:
    """A request to be answered once. Header names are lower-case, as ASGI promises."""

    __slots__ = (
        "_content_length",
        "_content_type",
        "_receive",
        "_send",
        "key",
        "method",
        "path",
        "request_id",
        "status",
        "streaming",
    )

    def __init__(self, scope: Scope, receive: Any, send: Any) -> None:
        self._receive = receive
        self._send = send
        self._content_type = b""
        self._content_length = b""
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.key: str | None = None
        self.request_id = ""
        self.status = 0
        self.streaming = False
        self._read_headers(scope["headers"])

    def _read_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        bearer: bytes | None = None
        for name, value in headers:
            if name == b"x-api-key":
                self.key = value.decode("latin-1")
            elif name == b"authorization" and value[:7].lower() == b"bearer ":
                bearer = value[7:].strip()
            elif name == b"content-type":
                self._content_type = value
            elif name == b"content-length":
                self._content_length = value
            elif name == b"x-request-id" and _VISIBLE.fullmatch(value):
                self.request_id = value.decode("ascii")
        if self.key is None and bearer is not None:
            self.key = bearer.decode("latin-1")
        if not self.request_id:
            self.request_id = random_id("req-")

    def check_json(self) -> None:
        """Raise `Invalid` (UNSUPPORTED_CONTENT_TYPE) unless the body claims to be JSON."""
        if self._content_type == b"application/json" or _JSON_TYPE.fullmatch(self._content_type):
            return
        got = self._content_type.decode("latin-1")[:100]
        raise Invalid(
            f"the body must be JSON: send content-type: application/json{f', got {got!r}' if got else ''}",
            reason=Reason.UNSUPPORTED_CONTENT_TYPE,
        )

    async def read_body(self, limit: int) -> bytes:
        """The whole body. Raises `Invalid` (BODY_TOO_LARGE) as soon as it is known to exceed `limit` bytes."""
        if self._content_length.isdigit() and int(self._content_length) > limit:
            raise _too_large(limit)
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            if not message.get("more_body", False):
                return b"".join((*parts, part)) if parts else part
            parts.append(part)

    def guard(self) -> "Guard":
        """`with` this around reading the body, and around the work that nobody needs once the client is gone."""
        return Guard(self._receive)

    async def reply(self, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
        self.status = status
        await self._start(
            status,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            *headers,
        )
        await self._send({"type": "http.response.body", "body": body})

    async def start_stream(self) -> None:
        self.status = 200
        self.streaming = True
        await self._start(
            200,
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),  # a proxy in front must not gather the events
        )

    async def write(self, chunk: bytes) -> None:
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end_stream(self, chunk: bytes) -> None:
        await self._send({"type": "http.response.body", "body": chunk})

    async def break_stream(self, status: int, chunk: bytes) -> None:
        """End a stream that has begun with an error; `status` is what it would have been."""
        self.status = status
        try:
            async with asyncio.timeout(FAREWELL_S):
                await self.end_stream(chunk)
        except TimeoutError:
            return  # the client does not read; the server closes the connection

    async def _start(self, status: int, *headers: tuple[bytes, bytes]) -> None:
        own = (b"x-request-id", self.request_id.encode("ascii"))
        await self._send({"type": "http.response.start", "status": status, "headers": [*headers, own]})


class Guard:
    """Cancels the task inside the `with`, as `asyncio.timeout` does, and raises what came to pass instead.

    That is `TimedOut` (BODY_TOO_SLOW) if `answer_by` was not called within `BODY_S`, `TimeoutError` if the work took
    until the deadline that was told there, and `ClientGone`. Most replies take less than `WATCH_AFTER_S`; only the
    others pay for more than one timer.
    """

    __slots__ = (
        "_cancelling",
        "_deadline",
        "_gone",
        "_late",
        "_loop",
        "_receive",
        "_slow",
        "_task",
        "_timer",
        "_watcher",
    )

    def __init__(self, receive: Any) -> None:
        self._receive = receive
        self._deadline: float | None = None
        self._slow = False
        self._gone = False
        self._late = False
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> "Guard":
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a guard needs a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(WATCH_AFTER_S, self._begin)
        return self

    def answer_by(self, deadline: float) -> None:
        """The body is there; the rest may take until then, by the loop's clock, and as long as the client stays."""
        self._deadline = deadline
        if self._slow:
            self._timer.cancel()
            self._begin()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None  # it holds its CancelledError, that its frame, that this: no cycle a request
        if not (self._gone or self._late):
            return
        cancelled_by_others = self._task.uncancel() > self._cancelling
        if kind is asyncio.CancelledError and not cancelled_by_others:
            raise self._came_to_pass() from None

    def _begin(self) -> None:
        self._slow = True
        if self._deadline is None:
            self._timer = self._loop.call_later(BODY_S, self._expire)
        else:
            self._watcher = self._loop.create_task(self._watch())
            self._timer = self._loop.call_at(self._deadline, self._expire)

    def _came_to_pass(self) -> Exception:
        if self._gone:
            return ClientGone()
        if self._deadline is None:
            return TimedOut(f"the body did not come within {BODY_S:g} s; send it at once", reason=Reason.BODY_TOO_SLOW)
        return TimeoutError()

    def _expire(self) -> None:
        if not self._gone:
            self._late = True
            self._task.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._late:
            self._gone = True
            self._task.cancel()


def _too_large(limit: int) -> Invalid:
    return Invalid(f"the body is larger than {limit} bytes", reason=Reason.BODY_TOO_LARGE)
