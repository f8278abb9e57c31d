"""A tar, listed from its headers alone. Python's `tarfile` reads one header; what follows what is judged here.

`tarfile` itself takes an extended header of any size into memory and follows sparse maps and chains without bounds.
"""

from collections.abc import Iterator
from tarfile import (
    AREGTYPE,
    BLKTYPE,
    BLOCKSIZE,
    CHRTYPE,
    CONTTYPE,
    DIRTYPE,
    FIFOTYPE,
    GNUTYPE_LONGLINK,
    GNUTYPE_LONGNAME,
    GNUTYPE_SPARSE,
    LNKTYPE,
    REGTYPE,
    SOLARIS_XHDTYPE,
    SYMTYPE,
    XGLTYPE,
    XHDTYPE,
    HeaderError,
    TarInfo,
)

from dockyard.errors import Failed, Reason
from dockyard.prepare.archive_rules import (
    MOST_ENTRIES,
    Member,
    checked_path,
    damaged,
    is_device,
    is_link,
    quoted,
    too_many,
    unsupported,
)
from dockyard.prepare.chunked_file import ChunkedFile

_FILES = (REGTYPE, AREGTYPE, CONTTYPE)
_EXTENDED = (XHDTYPE, SOLARIS_XHDTYPE)
_LARGEST_EXTENSION = 1 << 20  # bytes of a PAX record or a long name
_READ_BYTES = 1 << 20


class TarArchive:
    """Reads `file`, which begins with a header. Raises `Failed`."""

    def __init__(self, file: ChunkedFile) -> None:
        self._file = file

    def members(self) -> list[Member]:
        """The files, after a look at every header."""
        found: list[Member] = []
        pending: dict[str, str] = {}  # what an extended header says of the entry after it
        headers = at = 0
        while (header := self._header(at)) is not None:
            headers += 1
            if headers > 2 * MOST_ENTRIES:
                raise too_many()
            at += BLOCKSIZE
            if header.type in (*_EXTENDED, XGLTYPE, GNUTYPE_LONGNAME, GNUTYPE_LONGLINK):
                told = self._extension(header, at)
                if told.keys() & pending.keys():
                    raise damaged("two extended headers speak of one entry")
                pending |= told
                at += _blocks(header.size)
                continue
            path, size = checked_path(pending.get("path", header.name)), _size(header, pending)
            pending = {}
            if at + size > self._file.size:
                raise damaged(f"it ends inside of {quoted(path)}")
            if _is_file(header, path, size):
                found.append(Member(path, size, at))
                if len(found) > MOST_ENTRIES:
                    raise too_many()
                at += _blocks(size)
        self._check_end(at)
        return found

    def read(self, member: Member) -> Iterator[bytes]:
        """The file's bytes."""
        assert isinstance(member.handle, int)
        self._file.seek(member.handle)
        left = member.size
        while left:
            piece = self._file.read(min(left, _READ_BYTES))
            if not piece:
                raise damaged(f"it ends inside of {quoted(member.path)}")
            left -= len(piece)
            yield piece

    def _header(self, at: int) -> TarInfo | None:
        """The header at `at`; None at the mark of the end."""
        self._file.seek(at)
        block = self._file.read(BLOCKSIZE)
        if not block:
            raise damaged("it has no mark of its end, so something is missing")
        try:
            return read_header(block)
        except HeaderError as error:
            raise damaged(f"no header can be read at byte {at}") from error

    def _extension(self, header: TarInfo, at: int) -> dict[str, str]:
        """`path` and `size` from an extended header, where it tells them."""
        if not 0 <= header.size <= _LARGEST_EXTENSION:
            raise damaged(f"an extended header claims {header.size} bytes")
        content = self._file.read(header.size)
        if len(content) < header.size:
            raise damaged("it ends inside of an extended header")
        if header.type == GNUTYPE_LONGNAME:
            return {"path": _text(content.removesuffix(b"\0"))}
        if header.type == GNUTYPE_LONGLINK:
            return {}  # the entry after it is a link, and refused as such
        records = dict(_records(content))
        if any(key.startswith("GNU.sparse") for key in records):
            raise unsupported("the archive holds a sparse file")
        told = {key: records[key] for key in ("path", "size") if key in records}
        if told and header.type == XGLTYPE:
            raise unsupported("the archive sets the path or size of all its files at once")
        return told

    def _check_end(self, at: int) -> None:
        """After the mark nothing but zeros: what else is there belongs to another file."""
        self._file.seek(at)
        while piece := self._file.read(min(_READ_BYTES, max(1, self._file.size - self._file.tell()))):
            if piece.count(0) != len(piece):
                raise Failed(
                    "something follows the end of the tar: another file was appended, or two archives were joined; "
                    "pack the model's folder anew",
                    reason=Reason.ARCHIVE_KIND_MISMATCH,
                )


def read_header(block: bytes) -> TarInfo | None:
    """None for the mark of the end, a block of zeros. Raises `tarfile.HeaderError` for what is no header."""
    if len(block) == BLOCKSIZE == block.count(0):
        return None
    return TarInfo.frombuf(block, "utf-8", "surrogateescape")


def _is_file(header: TarInfo, path: str, size: int) -> bool:
    """Whether the entry is a file with a name; a folder is none. Raises `Failed` for everything else."""
    kind = header.type
    if kind in (SYMTYPE, LNKTYPE):
        raise is_link(path)
    if kind in (CHRTYPE, BLKTYPE, FIFOTYPE):
        raise is_device(path)
    if kind == GNUTYPE_SPARSE:
        raise unsupported(f"{quoted(path)} in the archive is a sparse file")
    if kind == DIRTYPE:
        if size:
            raise damaged(f"the folder {quoted(path)} claims {size} bytes")
        return False
    if kind not in _FILES:
        raise unsupported(f"{quoted(path)} in the archive is an entry of type {kind!r}")
    if not path:
        raise damaged("a file has no name")
    return True


def _size(header: TarInfo, told: dict[str, str]) -> int:
    size = told.get("size")
    if size is None:
        number = header.size
    elif size.isascii() and size.isdigit() and len(size) < 20:
        number = int(size)
    else:
        raise damaged(f"an extended header tells the size {quoted(size)}")
    if number < 0:
        raise damaged(f"{quoted(header.name)} claims {number} bytes")
    return number


def _records(content: bytes) -> Iterator[tuple[str, str]]:
    """The records of a PAX header: `<length> <key>=<value>\\n`, the length that of the whole record."""
    at = 0
    while at < len(content):
        digits, space, _ = content[at : at + 8].partition(b" ")
        if not space or not digits.isdigit():
            raise damaged("a record of an extended header cannot be read")
        length = int(digits)
        record = content[at + len(digits) + 1 : at + length]
        key, equals, value = record.partition(b"=")
        if at + length > len(content) or not equals or not value.endswith(b"\n"):
            raise damaged("a record of an extended header cannot be read")
        yield _text(key), _text(value[:-1])
        at += length


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _blocks(size: int) -> int:
    return -(-size // BLOCKSIZE) * BLOCKSIZE
