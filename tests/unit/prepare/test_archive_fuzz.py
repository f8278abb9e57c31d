"""Bytes of any kind, and sound archives with a few bytes bent: unpacked or refused, never another end."""

import io
import json
import os
import struct
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.hostile_tars import entry, pax, tar
from tests.hostile_zips import Part, make_zip

from dockyard.errors import Failed, Reason
from dockyard.prepare.archive import unpack_upload
from dockyard.prepare.reporting import Reporter
from dockyard.prepare.safetensors_header import read_header
from dockyard.protocols.preparation import UploadSource

SOUND_TAR = tar(
    pax(("path", "model/config.json"), ("size", "2"), ("mtime", "1.25")),
    entry("x"),
    entry("model", b"", b"5"),
    entry("L", b"model/model.safetensors\0", b"L"),
    entry("y", b"weights" * 99),
)
SOUND_ZIP = make_zip(
    Part(b"model/config.json", method=8),
    Part(b"model/model.safetensors", b"weights" * 99, method=8, extra=struct.pack("<2HQ", 1, 8, 693)),
    Part(b"model/tokenizer.json", b"{}"),
    comment=b"made by a test",
)

Edit = tuple[int, bytes]
edits = st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6)
kinds = st.sampled_from(("tar", "zip"))
chunk_sizes = st.sampled_from((1 << 20, 1000, 300))


def bent(content: bytes, changes: list[Edit]) -> bytes:
    """Overwritten in places; a tar's checksums are made to fit again, or nothing behind the first would be reached."""
    out = bytearray(content)
    for at, change in changes:
        at %= len(out)
        out[at : at + len(change)] = change[: len(out) - at]
    return bytes(out)


def summed_again(content: bytes) -> bytes:
    out = bytearray(content)
    for at in range(0, len(out) - 511, 512):
        if SOUND_TAR[at + 257 : at + 262] == b"ustar":
            out[at + 148 : at + 156] = b" " * 8
            out[at + 148 : at + 156] = b"%06o\0 " % sum(out[at : at + 512])
    return bytes(out)


def try_to_unpack(content: bytes, extension: str, chunk_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chunks, scratch = folder / "chunks", folder / "scratch"
        chunks.mkdir()
        scratch.mkdir()
        pieces = [content[at : at + chunk_bytes] for at in range(0, len(content), chunk_bytes)] or [b""]
        for number, piece in enumerate(pieces):
            (chunks / str(number)).write_bytes(piece)
        source = UploadSource(folder=str(chunks), chunks=len(pieces), extension=extension)
        try:
            unpack_upload(source, scratch, Reporter(io.BytesIO()), 0.9)
        except Failed as refusal:
            assert refusal.reason.startswith(("ARCHIVE_", "CONFIG_", "DISK_FULL"))  # noqa: PT017
            assert refusal.message.isprintable()  # noqa: PT017
        assert set(os.listdir(folder)) == {"chunks", "scratch"}
        written = [path for path in scratch.rglob("*") if path.is_file()]
        assert all(path.parent == scratch / "unpacked" for path in written)
        assert sum(path.stat().st_size for path in written) <= 64 << 20


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(edits, chunk_sizes)
def test_a_bent_tar(changes: list[Edit], chunk_bytes: int) -> None:
    try_to_unpack(summed_again(bent(SOUND_TAR, changes)), "tar", chunk_bytes)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(edits, chunk_sizes)
def test_a_bent_zip(changes: list[Edit], chunk_bytes: int) -> None:
    try_to_unpack(bent(SOUND_ZIP, changes), "zip", chunk_bytes)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.sampled_from((b"", b"PK\3\4", SOUND_TAR[:1536], SOUND_ZIP[:60])), st.binary(max_size=2000), kinds)
def test_bytes_of_any_kind(begin: bytes, rest: bytes, extension: str) -> None:
    try_to_unpack(begin + rest, extension, 500)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.integers(0, len(SOUND_ZIP)), kinds)
def test_an_archive_that_is_cut_anywhere(at: int, extension: str) -> None:
    try_to_unpack((SOUND_TAR if extension == "tar" else SOUND_ZIP)[:at], extension, 512)


numbers = st.integers(-5, 1 << 70) | st.integers(0, 64) | st.floats() | st.booleans() | st.none() | st.text(max_size=3)
tensor = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(("F32", "BF16", "F4", "I64", "X", "")) | numbers,
        "shape": st.lists(numbers, max_size=5) | numbers,
        "data_offsets": st.lists(numbers, max_size=3) | numbers,
    }
)
headers = st.dictionaries(st.text(max_size=5), tensor | numbers | st.lists(numbers, max_size=3), max_size=5)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(headers, st.binary(max_size=64))
def test_a_safetensors_header_of_any_kind(header: dict[str, Any], data: bytes) -> None:
    text = json.dumps(header).encode()
    _read(len(text).to_bytes(8, "little") + text + data)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(edits)
def test_a_bent_safetensors_file(changes: list[Edit]) -> None:
    text = json.dumps({"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}).encode()
    _read(bent(len(text).to_bytes(8, "little") + text + bytes(16), changes))


def _read(content: bytes) -> None:
    try:
        entries = read_header(io.BytesIO(content), len(content), "w.safetensors")
    except Failed as refusal:
        assert refusal.reason is Reason.WEIGHTS_UNREADABLE  # noqa: PT017
        assert len(refusal.message) < 400  # noqa: PT017
    else:
        assert sum(tensor.size for tensor in entries) < len(content)
