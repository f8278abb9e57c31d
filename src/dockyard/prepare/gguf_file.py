"""A GGUF file: opened with bounds on what it claims, judged, and its metadata at hand."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFEndian, GGUFReader, GGUFValueType, ReaderTensor
from gguf.gguf_reader import ReaderField

from dockyard.errors import Failed, Reason
from dockyard.prepare.gguf_kinds import KINDS, GgufKind

MAGIC = b"GGUF"

# The longest array of any known file is a vocabulary's merges, about 0.5 million.
_ARRAY_LIMIT = 4_000_000


class GgufFile:
    """The tensors and the metadata of a GGUF file of one of the `KINDS`; weights stay on the disk until asked for.

    Raises `Failed` (WEIGHTS_UNREADABLE, WEIGHTS_MISSING, GGUF_ARCHITECTURE_NOT_SUPPORTED).
    """

    def __init__(self, path: Path) -> None:
        try:
            self._reader = _BoundedReader(path)
            self._metadata = {key: field.contents() for key, field in self._reader.fields.items()}
        except (ValueError, KeyError, IndexError, TypeError, OverflowError) as error:
            raise Failed(
                f"the GGUF file cannot be read: {str(error)[:200]}; fetch the file again",
                reason=Reason.WEIGHTS_UNREADABLE,
            ) from error
        if self._reader.endianess is not GGUFEndian.LITTLE:
            raise Failed("the GGUF file is big-endian; fetch the usual form of it", reason=Reason.WEIGHTS_UNREADABLE)
        if (self.find("split.count") or 1) > 1:
            raise Failed(
                "the GGUF file is one part of several; join them with llama-gguf-split --merge and import the result",
                reason=Reason.WEIGHTS_MISSING,
            )
        self._prefix = self.find("general.architecture")
        _check_architecture(self._prefix, self.find(f"{self._prefix}.expert_count"))

    @property
    def kind(self) -> GgufKind:
        return KINDS[self._prefix]

    @property
    def tensors(self) -> dict[str, ReaderTensor]:
        return {tensor.name: tensor for tensor in self._reader.tensors}

    def find(self, key: str) -> Any:
        """A value of the metadata as a Python object; None where the file does not say."""
        value = self._metadata.get(key)
        return value.item() if isinstance(value, np.generic) else value

    def find_own(self, key: str) -> Any:
        """The same below the architecture's prefix."""
        return self.find(f"{self._prefix}.{key}")

    def number(self, key: str, default: int | None = None) -> int:
        """A positive whole number below the architecture's prefix."""
        value = self.find_own(key)
        if isinstance(value, list) and value and len(set(value)) == 1:  # one per layer, all the same
            value = value[0]
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 31:
            raise _unsound(f"{self._prefix}.{key}", value)
        return value

    def real(self, key: str, default: float | None = None) -> float:
        """A positive number below the architecture's prefix, with the few digits it was written with."""
        value = self.find_own(key)
        value = default if value is None else value
        if not isinstance(value, float) or not (math.isfinite(value) and value > 0):
            raise _unsound(f"{self._prefix}.{key}", value)
        return float(str(np.float32(value)))  # 9.999999747378752e-06 was 1e-05


def is_gguf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


class _BoundedReader(GGUFReader):
    """The library's reader slices past the end in silence and believes any array length; this one does not."""

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
        # frombuffer raises ValueError past the end, and takes a third of the time of slicing a memory map.
        kind = np.dtype(dtype).newbyteorder(override_order or self.byte_order)
        return np.frombuffer(self.data, dtype=kind, count=int(count), offset=int(offset))

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
        if raw_type == GGUFValueType.ARRAY:
            length = int(self._get(orig_offs + 4, np.uint64)[0])
            if length > _ARRAY_LIMIT:
                raise ValueError(f"an array of its header claims {length} entries")
        return super()._get_field_parts(orig_offs, raw_type)

    def _build_tensors(self, start_offs: int, fields: list[ReaderField]) -> None:
        super()._build_tensors(start_offs, fields)
        for tensor in self.tensors:
            if tensor.data_offset + tensor.n_bytes > len(self.data):
                raise ValueError(f"it ends before the weights of {tensor.name[:100]}")


def _check_architecture(name: Any, experts: Any) -> None:
    if name in KINDS and not experts:
        return
    what = f"the architecture {str(name)[:50]}" if name not in KINDS else f"a {name} that is a mixture of experts"
    raise Failed(
        f"the GGUF file holds {what}; GGUF files are imported for the dense architectures {', '.join(KINDS)}, so "
        "import the model's safetensors folder instead",
        reason=Reason.GGUF_ARCHITECTURE_NOT_SUPPORTED,
    )


def _unsound(key: str, value: Any) -> Failed:
    return Failed(
        f"{key} in the GGUF file must be a positive number, got {str(value)[:50]}; fetch the file again",
        reason=Reason.WEIGHTS_UNREADABLE,
    )
