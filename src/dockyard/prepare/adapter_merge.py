"""Merging: the base's weight files written anew with the adapter's matrices added, a block of rows at a time.

A merged file has the header, the order and the types of the base's, so index and config stay as they are.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dockyard.errors import Failed, Reason
from dockyard.prepare.adapter_plan import Change, LowRank, Replaced
from dockyard.prepare.files import CHUNK_BYTES, ArtifactFile, OnBytes, open_inside
from dockyard.prepare.manifest import FileEntry
from dockyard.prepare.safetensors_header import TensorEntry, read_header

_BLOCK_ELEMENTS = 1 << 22  # of a matrix at a time: 16 MiB as float32, of which some four are needed at once
_STORED = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class TensorFile:
    """A safetensors file that is open: its tensors, and their bytes."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.entries = read_header(file, os.fstat(file.fileno()).st_size, name)
        self._data_at = file.tell()
        self._file = file

    @property
    def header(self) -> bytes:
        self._file.seek(0)
        return self._file.read(self._data_at)

    def pieces(self, entry: TensorEntry) -> Iterator[bytes]:
        """The tensor's bytes as they are stored."""
        self._file.seek(self._data_at + entry.begin)
        left = entry.size
        while left:
            piece = self._file.read(min(left, CHUNK_BYTES))
            if not piece:
                raise _unreadable(entry)
            left -= len(piece)
            yield piece

    def rows(self, entry: TensorEntry, begin: int, end: int) -> np.ndarray:
        """Rows of a matrix, or elements of a vector, in float32 (float64 where that is what is stored)."""
        per_row = entry.size // max(1, entry.shape[0])
        self._file.seek(self._data_at + entry.begin + begin * per_row)
        raw = self._file.read((end - begin) * per_row)
        if len(raw) < (end - begin) * per_row:
            raise _unreadable(entry)
        return _decoded(raw, entry.dtype).reshape(end - begin, *entry.shape[1:])

    def whole(self, entry: TensorEntry) -> np.ndarray:
        return self.rows(entry, 0, entry.shape[0])


def merge_file(
    base: Path, name: str, adapter: TensorFile, plan: Mapping[str, Change], built: Path, on_bytes: OnBytes
) -> FileEntry:
    """Write `built/name`: the base's file of that name with what `plan` says of its tensors. Raises `Failed`."""
    with ExitStack() as stack:
        source = TensorFile(stack.enter_context(open_inside(base, name)), name)
        out = stack.enter_context(ArtifactFile(built, name))
        out.write(source.header)
        for entry in source.entries:
            for piece in _pieces(source, entry, adapter, plan.get(entry.name)):
                out.write(piece)
                on_bytes(len(piece))
        return out.finish()


def _pieces(source: TensorFile, entry: TensorEntry, adapter: TensorFile, change: Change | None) -> Iterator[bytes]:
    match change:
        case None:
            yield from source.pieces(entry)
        case Replaced():
            for begin, end in _blocks(entry):
                yield _encoded(adapter.rows(change.by, begin, end), entry)
        case LowRank():
            left, right = adapter.whole(change.left), adapter.whole(change.right)
            if change.transposed:
                left, right = left.T, right.T
            for begin, end in _blocks(entry):
                added = np.float32(change.scale) * (left[begin:end] @ right)
                onto = adapter.rows(change.onto, begin, end) if change.onto else source.rows(entry, begin, end)
                yield _encoded(onto + added, entry)


def _blocks(entry: TensorEntry) -> Iterator[tuple[int, int]]:
    rows = entry.shape[0]
    step = max(1, _BLOCK_ELEMENTS * rows // max(1, entry.elements))
    for begin in range(0, rows, step):
        yield begin, min(rows, begin + step)


def _decoded(raw: bytes, dtype: str) -> np.ndarray:
    stored = np.frombuffer(raw, dtype=_STORED[dtype])
    if dtype == "BF16":  # the upper half of a float32
        return (stored.astype("<u4") << 16).view("<f4")
    return stored if dtype == "F64" else stored.astype("<f4")


def _encoded(values: np.ndarray, entry: TensorEntry) -> bytes:
    """The values as `entry` stores them, rounded to the nearest, ties to even."""
    with np.errstate(over="ignore"):
        kept = _to_bfloat16(values) if entry.dtype == "BF16" else values.astype(_STORED[entry.dtype])
    finite = np.isfinite(values).all() and np.isfinite(_decoded(kept.tobytes(), entry.dtype)).all()
    if not finite:
        raise Failed(
            f"merged, {entry.name[:150]} holds values that are no numbers or exceed {entry.dtype}; was the adapter "
            "trained to its end?",
            reason=Reason.ADAPTER_DOES_NOT_FIT,
        )
    return kept.tobytes()


def _to_bfloat16(values: np.ndarray) -> np.ndarray:
    bits = values.astype("<f4").view("<u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def _unreadable(entry: TensorEntry) -> Failed:
    return Failed(
        f"the file ended before the tensor {entry.name[:150]} did; import the model again",
        reason=Reason.ARTIFACT_CORRUPT,
    )
