"""Reading a chunk: a multipart form whose file goes to the disk as it comes, its few fields kept in memory."""

import asyncio
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from dockyard.api.body import BodyTooLarge, UnsupportedContentType
from dockyard.errors import Invalid, Reason
from dockyard.services.upload_files import IncomingChunk

FILE = "file"
LONGEST_FIELD = 1024  # bytes
_MOST_PARTS = 32
_AROUND_FILE = 1 << 16  # bytes of a form that are not the file: boundaries, headers, fields
_AT_ONCE = 1 << 20  # bytes handed to the thread that parses and writes


@dataclass(slots=True)
class ChunkForm:
    """What came beside the file."""

    fields: dict[str, str] = field(default_factory=dict[str, str])
    has_file: bool = False
    ended: bool = False


async def read_chunk_form(request: Request, incoming: IncomingChunk, largest_file: int) -> ChunkForm:
    """Write the form's file into `incoming`, at most `largest_file` bytes.

    Raises `UnsupportedContentType`, `BodyTooLarge`, `Invalid` for no form or one without a file, and what writing does.
    """
    parser = _Parser(_boundary(request), incoming, largest_file)
    promised = request.headers.get("content-length", "")
    if promised.isascii() and promised.isdigit() and int(promised[:18]) > largest_file + _AROUND_FILE:
        raise _too_large(largest_file)
    waiting, size = list[bytes](), 0
    async for piece in request.stream():
        waiting.append(piece)
        size += len(piece)
        if size >= _AT_ONCE:
            await asyncio.to_thread(parser.feed, waiting)
            waiting, size = [], 0
    await asyncio.to_thread(parser.feed, waiting)
    return parser.finished()


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        got = kind.decode("latin-1")[:80]
        raise UnsupportedContentType(
            f"a chunk must be sent as multipart/form-data with the fields file and chunkNumber; "
            f"{f'got {got}' if got else 'the header content-type is absent'}"
        )
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:  # RFC 2046, 5.1.1
        raise _no_form("its content-type names no boundary of 1 to 70 characters")
    return boundary


class _Parser:
    """Turns the parser's callbacks into a `ChunkForm`. Used from one thread at a time."""

    def __init__(self, boundary: bytes, incoming: IncomingChunk, largest_file: int) -> None:
        self._form = ChunkForm()
        self._incoming = incoming
        self._largest_file = largest_file
        self._parts = 0
        self._header: list[bytes] = [b"", b""]
        self._disposition = b""
        self._name = ""
        self._value = bytearray()
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": lambda data, start, end: self._on_header(0, data[start:end]),
                "on_header_value": lambda data, start, end: self._on_header(1, data[start:end]),
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    def feed(self, pieces: list[bytes]) -> None:
        try:
            for piece in pieces:
                self._parser.write(piece)
        except FormParserError as error:
            raise _no_form(str(error)[:200]) from error

    def finished(self) -> ChunkForm:
        if not self._form.ended:
            raise _no_form("it ends before its last boundary; send the chunk again")
        if not self._form.has_file:
            raise Invalid("file is required: the bytes of the chunk", reason=Reason.MISSING_FIELD, field=FILE)
        return self._form

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise _no_form(f"it has more than {_MOST_PARTS} fields")
        self._disposition, self._name, self._value = b"", "", bytearray()

    def _on_header(self, which: int, data: bytes) -> None:
        self._header[which] += data  # bounded by the parser's own limits

    def _on_header_end(self) -> None:
        name, value = self._header
        self._header = [b"", b""]
        if name.strip().lower() == b"content-disposition":
            self._disposition = value

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._name == FILE:
            if self._form.has_file:
                raise Invalid("file is in the form twice; a request carries one chunk", field=FILE)
            self._form.has_file = True

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name != FILE:
            if len(self._value) + end - start > LONGEST_FIELD:
                raise Invalid(
                    f"the field {self._name[:80]} is longer than {LONGEST_FIELD} bytes; the chunk goes into file",
                    reason=Reason.OUT_OF_RANGE,
                    field=self._name[:80] or None,
                )
            self._value += data[start:end]
            return
        if self._incoming.size + end - start > self._largest_file:
            raise _too_large(self._largest_file)
        self._incoming.write(memoryview(data)[start:end])

    def _on_part_end(self) -> None:
        if self._name != FILE:
            self._form.fields[self._name] = self._value.decode("utf-8", "replace").strip()

    def _on_end(self) -> None:
        self._form.ended = True


def _no_form(what: str) -> Invalid:
    return Invalid(f"the body is no multipart form that can be read: {what}")


def _too_large(largest: int) -> BodyTooLarge:
    return BodyTooLarge(f"this chunk has at most {largest} bytes; send smaller chunks", field=FILE)
