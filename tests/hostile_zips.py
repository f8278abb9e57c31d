"""Zips made to do harm, or damaged: each made here byte by byte, with the reason that must come of it."""

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass

from tests.hostile_archives import BAD_NAMES, Hostile
from tests.hostile_tars import entry, tar, tar_and_zip

from dockyard.errors import Reason

_S_IFLNK, _S_IFCHR, _S_IFREG = 0o120777, 0o020666, 0o100644


@dataclass(frozen=True)
class Part:
    """An entry of a zip; what is None is told truthfully."""

    name: bytes = b"config.json"
    content: bytes = b"{}"
    mode: int = _S_IFREG
    flags: int = 0
    method: int = zipfile.ZIP_STORED
    told_size: int | None = None
    told_crc: int | None = None
    local_name: bytes | None = None
    offset: int | None = None
    extra: bytes = b""


def make_zip(*parts: Part, before: bytes = b"", directory_size: int | None = None, comment: bytes = b"") -> bytes:
    body, directory = before, b""
    for part in parts:
        packed = part.content
        if part.method == zipfile.ZIP_DEFLATED:
            deflate = zlib.compressobj(wbits=-15)
            packed = deflate.compress(part.content) + deflate.flush()
        size = len(part.content) if part.told_size is None else part.told_size
        crc = zlib.crc32(part.content) if part.told_crc is None else part.told_crc
        local = part.name if part.local_name is None else part.local_name
        offset = len(body) if part.offset is None else part.offset
        sizes = (crc, len(packed), min(size, 0xFFFFFFFF))
        middle = (20, part.flags, part.method, 0, 0x21, *sizes)
        body += struct.pack("<4s5H3I2H", b"PK\x03\x04", *middle, len(local), 0) + local + packed
        directory += struct.pack(
            "<4sH5H3I5H2I",
            b"PK\x01\x02",
            0x0314,
            *middle,
            len(part.name),
            len(part.extra),
            0,
            0,
            0,
            part.mode << 16,
            offset,
        )
        directory += part.name + part.extra
    told = len(directory) if directory_size is None else directory_size
    count = len(parts) % 0x10000
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, told, len(body), len(comment))
    return body + directory + end + comment


def _many(count: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(count):
            archive.writestr(f"{number}.json", b"")
    return out.getvalue()


def _overlapping() -> bytes:
    """Two entries over the same bytes: how a zip of kilobytes unpacks to terabytes without a great ratio each."""
    return make_zip(Part(b"a.json"), Part(b"b.json", offset=0, local_name=b"a.json"))


def _truncated_zip() -> bytes:
    return make_zip(Part())[:-30]


def _zip64(size: int) -> bytes:
    extra = struct.pack("<2HQ", 1, 8, size)
    return make_zip(Part(told_size=0xFFFFFFFF, extra=extra))


_PATH = Reason.ARCHIVE_PATH_REFUSED
_LINK = Reason.ARCHIVE_LINK_REFUSED
_DEVICE = Reason.ARCHIVE_DEVICE_REFUSED
_UNREADABLE = Reason.ARCHIVE_UNREADABLE
_FORM = Reason.ARCHIVE_FORM_NOT_SUPPORTED
_KIND = Reason.ARCHIVE_KIND_MISMATCH
_LAYOUT = Reason.ARCHIVE_LAYOUT
_LARGE = Reason.ARCHIVE_TOO_LARGE
_TWICE = Reason.ARCHIVE_DUPLICATE_NAME
_MANY = Reason.ARCHIVE_TOO_MANY_FILES

ZIPS: tuple[Hostile, ...] = tuple(
    Hostile(name, "zip", content, reason)
    for name, content, reason in (
        *(
            (f"{why} path", lambda path=path: make_zip(Part(path.encode("utf-8", "surrogatepass"), flags=0x800)), _PATH)
            for why, path in BAD_NAMES.items()
            if why not in ("not UTF-8", "over-long")
        ),
        ("over-long path", lambda: make_zip(Part(b"n" * 300)), _PATH),
        ("NUL in a path", lambda: make_zip(Part(b"config.json\0.txt")), _PATH),
        ("not UTF-8 path", lambda: make_zip(Part(b"config\xff.json", flags=0x800)), _UNREADABLE),
        ("symbolic link", lambda: make_zip(Part(mode=_S_IFLNK)), _LINK),
        ("device", lambda: make_zip(Part(mode=_S_IFCHR)), _DEVICE),
        ("encrypted", lambda: make_zip(Part(flags=1)), Reason.ARCHIVE_ENCRYPTED),
        ("encrypted strongly", lambda: make_zip(Part(flags=0x41)), Reason.ARCHIVE_ENCRYPTED),
        ("bzip2", lambda: make_zip(Part(method=zipfile.ZIP_BZIP2)), _FORM),
        ("lzma", lambda: make_zip(Part(method=zipfile.ZIP_LZMA)), _FORM),
        ("method that nobody knows", lambda: make_zip(Part(method=77)), _FORM),
        ("bomb", lambda: make_zip(Part(b"model.safetensors", bytes(80 << 20), method=zipfile.ZIP_DEFLATED)), _LARGE),
        (
            "bomb of small files",
            lambda: make_zip(*[Part(b"%d.json" % n, bytes(1 << 20), method=8) for n in range(65)]),
            _LARGE,
        ),
        (
            "bomb that claims little",
            lambda: make_zip(Part(content=bytes(1 << 20), method=8, told_size=10)),
            _UNREADABLE,
        ),
        ("claims more than it has", lambda: make_zip(Part(method=8, told_size=4000)), _UNREADABLE),
        ("stored with two sizes", lambda: make_zip(Part(told_size=1)), _UNREADABLE),
        ("zip64 that lies", lambda: _zip64(1 << 62), _UNREADABLE),
        ("zip64 without its sizes", lambda: make_zip(Part(told_size=0xFFFFFFFF, extra=b"\1\0\0\0")), _UNREADABLE),
        ("overlapping entries", _overlapping, _UNREADABLE),
        ("entry past the end", lambda: make_zip(Part(offset=1 << 30)), _UNREADABLE),
        ("two names for one entry", lambda: make_zip(Part(local_name=b"model.py___")), _UNREADABLE),
        ("wrong checksum", lambda: make_zip(Part(told_crc=1)), _UNREADABLE),
        (
            "deflate that is none",
            lambda: make_zip(Part(content=b"\xff" * 9)).replace(b"\0\0\0\0\x21", b"\x08\0\0\0\x21"),
            _UNREADABLE,
        ),
        ("something before it", lambda: make_zip(Part(), before=b"#!/bin/sh\n"), _KIND),
        ("hidden entry before it", lambda: make_zip(Part(), before=b"PK\x03\x04hidden"), _UNREADABLE),
        ("directory of four GiB", lambda: make_zip(Part(), directory_size=0xFFFFFFFE), _UNREADABLE),
        (
            "directory of five MB",
            lambda: make_zip(*[Part(b"%d" % n, extra=bytes(60_000)) for n in range(80)]),
            _UNREADABLE,
        ),
        ("no end", _truncated_zip, _UNREADABLE),
        ("same name twice", lambda: make_zip(Part(), Part()), _TWICE),
        ("ten thousand files and one", lambda: _many(10_001), _MANY),
        ("no files", make_zip, _KIND),
        ("two models", lambda: make_zip(Part(b"a/config.json"), Part(b"b/config.json")), _LAYOUT),
        ("a tar", lambda: tar(entry("config.json")), _KIND),
        ("tar and zip at once", tar_and_zip, _KIND),
        ("a 7z archive", lambda: b"7z\xbc\xaf\x27\x1c" + bytes(600), _KIND),
        ("config.json of two MiB", lambda: make_zip(Part(content=bytes(2 << 20), method=8)), Reason.CONFIG_UNREADABLE),
        (
            "tokenizer.json of seventy MB",
            lambda: make_zip(Part(b"tokenizer.json", bytes(65 << 20), method=8), Part(b"weights.bin", bytes(4 << 20))),
            _LARGE,
        ),
    )
)
