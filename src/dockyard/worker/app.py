"""The replica as an ASGI app: `POST /generate`, `GET /health`, `GET /watch`, as `protocols/generation.py` has them.

Bare ASGI: this is the hot path, and three routes need no framework.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from dockyard.errors import DockyardError, Invalid, NotFound, Reason, Unauthenticated
from dockyard.protocols.generation import TOKEN_HEADER, GenerateEvent, GenerateRequest, ReplicaError
from dockyard.worker.log import log
from dockyard.worker.replica import Replica
from dockyard.worker.serving import Answer

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_STATUS = {"invalid": 400, "unauthenticated": 401, "not_found": 404, "unavailable": 503}
_JSON = [(b"content-type", b"application/json")]
_NDJSON = [(b"content-type", b"application/x-ndjson")]
_TOKEN_HEADER = TOKEN_HEADER.encode()

_encoder = msgspec.json.Encoder()
_request_decoder = msgspec.json.Decoder(GenerateRequest)


class ReplicaApp:
    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._token = replica.spec.token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            self._check_token(scope)
            match scope["method"], scope["path"]:
                case "POST", "/generate":
                    await self._generate(receive, send)
                case "GET", "/health":
                    self._replica.hear_from_server()
                    await _reply(send, 200, _encoder.encode(self._replica.health()))
                case "GET", "/watch":
                    await self._watch(receive, send)
                case method, path:
                    raise NotFound(f"a replica has no {method} {path}")
        except DockyardError as error:
            await _reply(send, _STATUS.get(error.kind, 500), _encoder.encode(_told(error)))

    def _check_token(self, scope: Scope) -> None:
        given = next((value for name, value in scope["headers"] if name == _TOKEN_HEADER), b"")
        if not hmac.compare_digest(given, self._token):
            raise Unauthenticated(
                f"the header {TOKEN_HEADER} must carry this replica's token",
                reason=Reason.UNKNOWN_KEY if given else Reason.NO_KEY,
            )

    async def _generate(self, receive: Receive, send: Send) -> None:
        """Errors before the first event are a status; later ones are an event."""
        body = await _read(receive)
        answer = await self._replica.open_request(_parsed(body), len(body))
        try:
            await _stream(answer, receive, send)
        finally:
            answer.cancel()
            self._replica.close_request()

    async def _watch(self, receive: Receive, send: Send) -> None:
        """Health at once and at every change, until the client goes or the replica ends."""
        changed = self._replica.open_watch()
        gone = _when_gone(receive, changed.set)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _NDJSON})
            ended = False
            while not ended and not gone.done():
                changed.clear()
                ended = self._replica.ended.done()
                line = _encoder.encode(self._replica.health()) + b"\n"
                await send({"type": "http.response.body", "body": line, "more_body": True})
                if not ended:
                    await changed.wait()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()
            self._replica.close_watch(changed)


async def _stream(answer: Answer, receive: Receive, send: Send) -> None:
    gone = None if answer.all_there else _when_gone(receive, answer.cancel)
    try:
        await send({"type": "http.response.start", "status": 200, "headers": _NDJSON})
        try:
            async for events in answer.events():
                more = events[-1].finish is None
                await send({"type": "http.response.body", "body": _lines(events), "more_body": more})
        except DockyardError as error:
            log("ERROR", "generation_failed", reason=error.reason, message=error.message)
            body = _lines([GenerateEvent(error=_told(error))])
            await send({"type": "http.response.body", "body": body, "more_body": False})
    finally:
        if gone is not None:
            gone.cancel()


def _when_gone(receive: Receive, then: Callable[[], None]) -> "asyncio.Task[None]":
    """Calls `then` once the client has dropped the connection."""

    async def wait() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        then()

    return asyncio.get_running_loop().create_task(wait())


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Invalid("the connection was dropped before the request was complete")
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _parsed(body: bytes) -> GenerateRequest:
    try:
        return _request_decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Invalid(f"the request does not fit the protocol: {error}", reason=Reason.WRONG_TYPE) from error
    except msgspec.DecodeError as error:
        raise Invalid(f"the request is no JSON: {error}", reason=Reason.UNREADABLE_JSON) from error


def _lines(events: Sequence[GenerateEvent]) -> bytes:
    return b"".join([_encoder.encode(event) + b"\n" for event in events])


def _told(error: DockyardError) -> ReplicaError:
    return ReplicaError(kind=error.kind, reason=error.reason, message=error.message, field=error.field)


async def _reply(send: Send, status: int, body: bytes) -> None:
    headers = [*_JSON, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
