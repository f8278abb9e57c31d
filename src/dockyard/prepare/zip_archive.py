"""A zip: listed from its directory, each entry judged before a byte of it is unpacked."""

import errno
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, LargeZipFile, ZipFile, ZipInfo

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

MAGIC = b"PK\x03\x04"
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_READ_BYTES = 1 << 20
_END_MAGIC, _END_RECORD = b"PK\x05\x06", 22  # bytes, and a comment after them
_LOCAL_HEADER = 30  # bytes at least


class ZipArchive:
    """Reads `file`, which begins with `MAGIC`. Raises `Failed`."""

    def __init__(self, file: ChunkedFile) -> None:
        self._file = file
        with _translated():
            self._zip = ZipFile(file)

    def members(self) -> list[Member]:
        """The files, after a look at every entry of the directory."""
        entries = self._zip.infolist()
        if len(entries) > MOST_ENTRIES:
            raise too_many()
        self._check_places(entries)
        self._check_end()
        return [member for entry in entries if (member := _member(entry)) is not None]

    def read(self, member: Member) -> Iterator[bytes]:
        """The file's bytes, compared with their checksum at the end."""
        assert isinstance(member.handle, ZipInfo)
        with _translated(), self._zip.open(member.handle) as file:
            while piece := file.read(_READ_BYTES):
                yield piece

    def _check_places(self, entries: list[ZipInfo]) -> None:
        """Entries lie one after the other, from the first byte on: none in another one, nothing before them all."""
        end = 0
        for entry in sorted(entries, key=lambda entry: entry.header_offset):
            if entry.header_offset < end or (end == 0 and entry.header_offset > 0):
                raise damaged("its entries overlap, or something else lies before them")
            end = entry.header_offset + _LOCAL_HEADER + entry.compress_size
        if end > self._file.size:
            raise damaged("its directory tells of more bytes than it has")

    def _check_end(self) -> None:
        """The record that ends a zip ends the file: what else is there belongs to another one."""
        length = _END_RECORD + len(self._zip.comment)
        self._file.seek(max(0, self._file.size - length))
        if not self._file.read(length).startswith(_END_MAGIC):
            raise Failed(
                "something follows the end of the zip: another file was appended, or two archives were joined; pack "
                "the model's folder anew",
                reason=Reason.ARCHIVE_KIND_MISMATCH,
            )


def _member(entry: ZipInfo) -> Member | None:
    """The entry as a file; None for a folder."""
    path = checked_path(entry.orig_filename)  # `filename` was cut off at a NUL
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise is_link(path)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise is_device(path)
    if entry.flag_bits & _ENCRYPTED:
        raise Failed(
            f"{quoted(path)} in the archive needs a password; pack it without one", reason=Reason.ARCHIVE_ENCRYPTED
        )
    if entry.is_dir():
        return None
    if entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise unsupported(f"{quoted(path)} in the archive is compressed by method {entry.compress_type}")
    if entry.compress_type == ZIP_STORED and entry.compress_size != entry.file_size:
        raise damaged(f"{quoted(path)} tells two sizes")
    if not path:
        raise damaged("a file has no name")
    return Member(path, entry.file_size, entry)


@contextmanager
def _translated() -> Iterator[None]:
    """What the library raises for bytes that are no sound zip. An OSError is the disk's, unless it is a wild seek."""
    try:
        yield
    except (BadZipFile, LargeZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise damaged(str(error)[:200] or "it cannot be read") from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise damaged("it points outside of itself") from error
    except (zlib.error, struct.error, ValueError, OverflowError, IndexError) as error:
        raise damaged("it cannot be read") from error
