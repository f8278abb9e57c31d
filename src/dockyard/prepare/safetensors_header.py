"""The header of a safetensors file: read and judged without touching a weight."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from dockyard.errors import Failed, Reason

# The format's own bound is 100 MB; a model of 100,000 tensors needs 15. Read as JSON it takes up to 30 times as much.
_HEADER_LIMIT = 32 << 20  # bytes
_MOST_DIMENSIONS = 32  # the product of a million lengths takes hours to compute
_LARGEST_NUMBER = 1 << 62

# Bits per element, as the format spells its types.
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip

FLOAT_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor of a file: type as the format spells it, shape, and where its bytes lie in the data part."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        return self.end - self.begin


def read_header(file: BinaryIO, file_bytes: int, name: str) -> tuple[TensorEntry, ...]:
    """The tensors of the safetensors file `name`, in the order of their bytes.

    Raises `Failed` (WEIGHTS_UNREADABLE) unless the header is sound and the file is exactly as long as it says.
    """
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > min(_HEADER_LIMIT, file_bytes - 8):
        raise _damaged(name, f"its header claims {length} bytes and the file has {file_bytes}")
    try:
        header = json.loads(file.read(length).decode())
    except (ValueError, RecursionError) as error:
        raise _damaged(name, "its header is no JSON") from error
    if not isinstance(header, dict):
        raise _damaged(name, "its header is no JSON object")
    entries = [_entry(name, key, value) for key, value in header.items() if key != "__metadata__"]
    entries.sort(key=lambda entry: (entry.begin, entry.end))
    _check_layout(name, entries, file_bytes - 8 - length)
    return tuple(entries)


def _entry(file: str, name: str, value: Any) -> TensorEntry:
    try:
        dtype, shape, (begin, end) = value["dtype"], tuple(value["shape"]), value["data_offsets"]
        sound = len(shape) <= _MOST_DIMENSIONS and all(
            type(number) is int and 0 <= number <= _LARGEST_NUMBER for number in (*shape, begin, end)
        )
        fits = sound and (end - begin) * 8 == math.prod(shape) * _BITS[dtype]
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(file, f"the entry of tensor {name[:100]!r} cannot be read") from error
    if not fits:
        raise _damaged(file, f"shape, type and place of tensor {name[:100]!r} do not agree")
    return TensorEntry(name, dtype, shape, begin, end)


def _check_layout(file: str, entries: Sequence[TensorEntry], data_bytes: int) -> None:
    """Tensors follow each other without gap or overlap, from the first byte of the data to the last."""
    expected = 0
    for entry in entries:
        if entry.begin != expected:
            raise _damaged(file, f"tensor {entry.name[:100]!r} does not begin where the one before it ends")
        expected = entry.end
    if expected != data_bytes:
        raise _damaged(file, f"its header promises {expected} bytes of weights and {data_bytes} are there")


def _damaged(name: str, what: str) -> Failed:
    return Failed(f"{name} is damaged: {what}; fetch the file again", reason=Reason.WEIGHTS_UNREADABLE)
