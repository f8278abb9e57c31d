"""Tars made to do harm, or damaged: each made here byte by byte, with the reason that must come of it."""

import io
import tarfile
import zipfile

from tests.hostile_archives import BAD_NAMES, Hostile

from dockyard.errors import Reason

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)


def entry(name: str, content: bytes = b"{}", kind: bytes = tarfile.REGTYPE, **fields: object) -> bytes:
    """A header in the old form and the content after it, whatever sense it makes."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, "config.json"
    for field, value in fields.items():
        setattr(info, field, value)
    header = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    return header + _padded(content)


def tar(*entries: bytes) -> bytes:
    return b"".join(entries) + END


def pax(*records: tuple[str, str], kind: bytes = tarfile.XHDTYPE) -> bytes:
    return raw_pax(
        b"".join(_record(f"{key}={value}".encode("utf-8", "surrogateescape")) for key, value in records), kind
    )


def raw_pax(content: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    return entry("pax", content, kind)


def claiming(size: int, kind: bytes = tarfile.REGTYPE, name: str = "config.json") -> bytes:
    """A header that tells another size than there is content."""
    block = bytearray(entry(name, b"", kind)[:BLOCK])
    if 0 <= size < 1 << 33:
        block[124:136] = b"%011o\0" % size
    else:
        block[124:136] = (size % (1 << 96)).to_bytes(12, "big")
        block[124] = 0o377 if size < 0 else 0o200
    return summed(block)


def summed(block: bytearray) -> bytes:
    """With the checksum that its bytes have."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _record(text: bytes) -> bytes:
    length = len(text) + 3
    while length != len(str(length)) + len(text) + 2:
        length = len(str(length)) + len(text) + 2
    return b"%d %s\n" % (length, text)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


def _damaged_header() -> bytes:
    second = bytearray(entry("b.json"))
    second[0] ^= 1
    return tar(entry("a.json"), bytes(second))


def _unknown_type() -> bytes:
    return tar(entry("config.json", kind=b"Z"))


def tar_and_zip() -> bytes:
    """The name begins as a zip does, and a zip's directory follows the end."""
    block = bytearray(entry("xxxxconfig.json"))[:BLOCK]
    block[:4] = b"PK\x03\x04"
    return summed(block) + _padded(b"{}") + END


def _any_zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("config.json", "{}")
    return out.getvalue()


_PATH = Reason.ARCHIVE_PATH_REFUSED
_LINK = Reason.ARCHIVE_LINK_REFUSED
_DEVICE = Reason.ARCHIVE_DEVICE_REFUSED
_UNREADABLE = Reason.ARCHIVE_UNREADABLE
_FORM = Reason.ARCHIVE_FORM_NOT_SUPPORTED
_KIND = Reason.ARCHIVE_KIND_MISMATCH
_LAYOUT = Reason.ARCHIVE_LAYOUT
_TWICE = Reason.ARCHIVE_DUPLICATE_NAME
_MANY = Reason.ARCHIVE_TOO_MANY_FILES

TARS: tuple[Hostile, ...] = tuple(
    Hostile(name, "tar", content, reason)
    for name, content, reason in (
        *(
            (f"{why} path", lambda path=path: tar(pax(("path", path)), entry("x")), _PATH)
            for why, path in BAD_NAMES.items()
        ),
        ("NUL in a path", lambda: tar(pax(("path", "config.json\0.txt")), entry("x")), _PATH),
        ("absolute in the header", lambda: tar(entry("/config.json")), _PATH),
        ("folder that leads out", lambda: tar(entry("../x", b"", tarfile.DIRTYPE)), _PATH),
        ("symbolic link", lambda: tar(entry("link.json", b"", tarfile.SYMTYPE)), _LINK),
        ("hard link", lambda: tar(entry("config.json"), entry("link.json", b"", tarfile.LNKTYPE)), _LINK),
        (
            "link by a long name",
            lambda: tar(entry("L", b"../" * 50 + b"\0", tarfile.GNUTYPE_LONGLINK), entry("x", b"", tarfile.SYMTYPE)),
            _LINK,
        ),
        ("character device", lambda: tar(entry("null", b"", tarfile.CHRTYPE)), _DEVICE),
        ("block device", lambda: tar(entry("sda", b"", tarfile.BLKTYPE)), _DEVICE),
        ("pipe", lambda: tar(entry("pipe", b"", tarfile.FIFOTYPE)), _DEVICE),
        ("sparse file", lambda: tar(entry("config.json", b"", tarfile.GNUTYPE_SPARSE)), _FORM),
        (
            "sparse file by PAX",
            lambda: tar(pax(("GNU.sparse.major", "1"), ("GNU.sparse.realsize", str(1 << 50))), entry("x")),
            _FORM,
        ),
        ("unknown type", _unknown_type, _FORM),
        ("multi-volume", lambda: tar(entry("config.json", kind=b"M")), _FORM),
        ("global path", lambda: tar(pax(("path", "config.json"), kind=tarfile.XGLTYPE), entry("x")), _FORM),
        ("PAX header of two GiB", lambda: tar(claiming(2 << 30, tarfile.XHDTYPE)), _UNREADABLE),
        ("PAX header of negative size", lambda: tar(claiming(-1, tarfile.XHDTYPE)), _UNREADABLE),
        ("PAX header past the end", lambda: claiming(5000, tarfile.XHDTYPE), _UNREADABLE),
        ("PAX record that lies", lambda: tar(raw_pax(b"99 path=config.json\n"), entry("x")), _UNREADABLE),
        ("PAX record of no length", lambda: tar(raw_pax(b"0 path=config.json\n"), entry("x")), _UNREADABLE),
        ("PAX record without a length", lambda: tar(raw_pax(b"path=config.json\n"), entry("x")), _UNREADABLE),
        ("PAX record without a value", lambda: tar(raw_pax(b"8 path\n\n\n"), entry("x")), _UNREADABLE),
        ("negative PAX size", lambda: tar(pax(("size", "-1")), entry("config.json")), _UNREADABLE),
        ("endless PAX size", lambda: tar(pax(("size", "9" * 4000)), entry("config.json")), _UNREADABLE),
        ("size of other digits", lambda: tar(pax(("size", "٣")), entry("config.json")), _UNREADABLE),
        ("two PAX paths", lambda: tar(pax(("path", "a.json")), pax(("path", "b.json")), entry("x")), _UNREADABLE),
        ("long name of a hundred MB", lambda: tar(claiming(100 << 20, tarfile.GNUTYPE_LONGNAME)), _UNREADABLE),
        (
            "long name that leads out",
            lambda: tar(entry("L", b"../" * 50 + b"\0", tarfile.GNUTYPE_LONGNAME), entry("x")),
            _PATH,
        ),
        ("negative size", lambda: tar(claiming(-4096)), _UNREADABLE),
        ("size of 2^80", lambda: tar(claiming(1 << 80)), _UNREADABLE),
        ("more than there is", lambda: tar(claiming(1 << 20)), _UNREADABLE),
        ("folder with content", lambda: tar(claiming(512, tarfile.DIRTYPE), bytes(512)), _UNREADABLE),
        ("cut inside a file", lambda: entry("config.json", b"x" * 2000)[:1500], _UNREADABLE),
        ("cut inside a header", lambda: entry("config.json") + entry("b.json")[:100], _UNREADABLE),
        ("no mark of the end", lambda: entry("config.json"), _UNREADABLE),
        ("damaged header", _damaged_header, _UNREADABLE),
        ("same name twice", lambda: tar(entry("config.json"), entry("config.json")), _TWICE),
        ("same name written otherwise", lambda: tar(entry("config.json"), entry("./config.json")), _TWICE),
        ("file that is a folder", lambda: tar(entry("model"), entry("model/config.json")), _TWICE),
        ("ten thousand files and one", lambda: tar(*[entry(f"f{n}", b"") for n in range(10_001)]), _MANY),
        ("thirty thousand folders", lambda: tar(entry("d", b"", tarfile.DIRTYPE) * 30_000), _MANY),
        ("no files", lambda: END, _LAYOUT),
        ("folders only", lambda: tar(entry("model", b"", tarfile.DIRTYPE)), _LAYOUT),
        ("two models", lambda: tar(entry("a/config.json"), entry("b/config.json")), _LAYOUT),
        ("file without a name", lambda: tar(entry(".")), _UNREADABLE),
        ("something after the end", lambda: tar(entry("config.json")) + b"#!/bin/sh", _KIND),
        ("a zip after the end", lambda: tar(entry("config.json")) + _any_zip(), _KIND),
        ("tar and zip at once", tar_and_zip, _KIND),
        ("a zip", _any_zip, _KIND),
        ("gzip", lambda: b"\x1f\x8b\x08" + bytes(600), _KIND),
        ("a GGUF file", lambda: b"GGUF" + bytes(600), _KIND),
        ("a script", lambda: b"#!/bin/sh\nrm -rf /\n" * 40, _KIND),
        ("one byte", lambda: b"x", _KIND),
        ("config.json of two MiB", lambda: tar(entry("config.json", bytes(2 << 20))), Reason.CONFIG_UNREADABLE),
    )
)
