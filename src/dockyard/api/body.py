"""Reading a JSON body: its type, its size, its encoding, its syntax. What the fields mean is `wire`'s."""

import json
import math
import sys
from typing import Any

from starlette.requests import Request

from dockyard.errors import DockyardError, Invalid, Reason

LARGEST_BODY = 1 << 20  # bytes
_LONGEST_NUMBER = 100  # characters: more than any bound has digits, and more than any message shows


class BodyTooLarge(DockyardError):
    """The body is too large."""

    kind = "body_too_large"
    default_reason = Reason.BODY_TOO_LARGE


class UnsupportedContentType(DockyardError):
    """The route reads application/json."""

    kind = "unsupported_content_type"
    default_reason = Reason.UNSUPPORTED_CONTENT_TYPE


class ReadRequest(Request):
    """A request whose JSON body was read already."""

    def __init__(self, request: Request, raw: bytes, document: Any) -> None:
        super().__init__(request.scope, request.receive)
        self._raw = raw
        self._document = document

    async def body(self) -> bytes:
        return self._raw

    async def json(self) -> Any:
        return self._document


async def read_json(request: Request, *, required: bool = True) -> ReadRequest:
    """The request with its body read; an empty one is left empty unless it is `required`.

    Raises `BodyTooLarge`, `UnsupportedContentType`, and `Invalid` (UNREADABLE_JSON).
    """
    raw = await _read(request)
    if not raw and not required:
        return ReadRequest(request, raw, None)
    if not raw:
        raise _unreadable("the body is empty; send a JSON object")
    _check_content_type(request.headers.get("content-type", ""))
    return ReadRequest(request, raw, parse(raw))


async def _read(request: Request) -> bytes:
    """At most `LARGEST_BODY` bytes, whatever the content-length promises."""
    promised = request.headers.get("content-length", "")
    if promised.isascii() and promised.isdigit() and (len(promised) > 18 or int(promised) > LARGEST_BODY):
        raise _too_large()
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > LARGEST_BODY:
            raise _too_large()
        chunks.append(chunk)
    return b"".join(chunks)


def _check_content_type(header: str) -> None:
    media_type = header.split(";")[0].strip().lower()
    if media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json")):
        return
    got = f"got {media_type[:80]}" if media_type else "the header is absent"
    raise UnsupportedContentType(f"the body must be JSON, sent with content-type: application/json; {got}")


def parse(raw: bytes) -> Any:
    """The document in `raw`. Raises `Invalid` (UNREADABLE_JSON)."""
    try:
        return json.loads(raw.decode("utf-8-sig"), parse_int=_integer, parse_float=_float)
    except UnicodeDecodeError as error:
        raise _unreadable(f"the body is not UTF-8: byte {error.start} begins no character") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise _unreadable(f"the body is no JSON: {error.msg[:1].lower()}{error.msg[1:]} at {where}") from error
    except RecursionError as error:
        raise _unreadable("the body nests too deeply") from error


def _integer(digits: str) -> int:
    """Python refuses to read thousands of digits; cut off, such a number is as far out of every range as before."""
    return int(digits[:_LONGEST_NUMBER])


def _float(text: str) -> float:
    """1e999 is a number in JSON and infinity in Python: the largest one stands for it."""
    number = float(text)
    return math.copysign(sys.float_info.max, number) if math.isinf(number) else number


def _unreadable(message: str) -> Invalid:
    return Invalid(message, reason=Reason.UNREADABLE_JSON)


def _too_large() -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {LARGEST_BODY} bytes")
