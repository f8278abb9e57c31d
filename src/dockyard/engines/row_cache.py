"""Keys and values of rows that come and go, side by side in a cache of Transformers' own kind.

All rows end in the same column, where the next token goes; a shorter row begins further right, and what is left of it
is masked. A row that comes is copied in, one that goes is overwritten by the last: nothing else moves. A step writes a
column where the library's own cache copies all of it (a fifth of the time of a step of ten rows at 300 tokens).
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

_SPARE_COLUMNS = 64  # so many steps pass until the columns are copied to a place with more


class RowCache(Cache):
    """For at most `capacity` rows. Rows are numbered without gaps; of a cache without rows nothing is kept."""

    def __init__(self, capacity: int) -> None:
        super().__init__(layers=[])
        self._capacity = capacity
        self._hold([])

    def add(self, prompts: DynamicCache, lengths: Sequence[int]) -> None:
        """The rows of `prompts`, of which the last `lengths` columns count, become the last ones here."""
        if not self._layers:
            self._hold([_Layer(self._capacity) for _ in prompts.layers])
        for layer, prompt in zip(self._layers, prompts.layers, strict=True):
            assert isinstance(prompt, DynamicLayer)
            assert prompt.keys is not None
            assert prompt.values is not None
            layer.add(prompt.keys, prompt.values, lengths)

    def remove(self, row: int) -> None:
        """The last row takes its number."""
        for layer in self._layers:
            layer.remove(row)

    def narrow(self, width: int) -> None:
        """No row has more than `width` columns; 0: there is none."""
        if width == 0:
            self._hold([])
        for layer in self._layers:
            layer.start = layer.end - width

    def _hold(self, layers: "list[_Layer]") -> None:
        self._layers = layers
        self.layers = [*layers]


class _Layer(DynamicLayer):
    """Columns `start` to `end` of the first `rows` rows are what the model sees."""

    # The library finds out by this whether to mask a window: what is here is never cut to one.
    is_sliding = False

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.rows = self.start = self.end = 0
        self._capacity = capacity
        self._keys: Any = None
        self._values: Any = None

    def add(self, keys: torch.Tensor, values: torch.Tensor, lengths: Sequence[int]) -> None:
        """Both of shape (rows, heads, columns, size of a head)."""
        if self._keys is None:
            self.lazy_initialization(keys, values)
            self._keys, self._values = _nothing(keys), _nothing(values)
        width = max(*lengths, self.end - self.start)
        if self.end < width:
            self._make_room(width)
        self.start = self.end - width
        for buffer, new in ((self._keys, keys), (self._values, values)):
            for index, length in enumerate(lengths):
                row, begins = buffer[self.rows + index], self.end - length
                row[:, :begins] = 0  # what is masked is multiplied by zero: it must be a number
                row[:, begins : self.end] = new[index, :, -length:]
        self.rows += len(lengths)

    def remove(self, row: int) -> None:
        self.rows -= 1
        if row < self.rows:
            for buffer in (self._keys, self._values):
                buffer[row, :, self.start : self.end] = buffer[self.rows, :, self.start : self.end]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.end == self._keys.shape[-2]:
            self._make_room(self.end - self.start)
        end = self.end + key_states.shape[-2]  # by one: prompts are read in a cache of their own
        self._keys[: self.rows, :, self.end : end] = key_states
        self._values[: self.rows, :, self.end : end] = value_states
        self.end = end
        return self._keys[: self.rows, :, self.start : end], self._values[: self.rows, :, self.start : end]

    def get_seq_length(self) -> int:
        return self.end - self.start

    def _make_room(self, width: int) -> None:
        """For `width` columns and some steps; those that are there come last."""
        begins = width - (self.end - self.start)
        for name in ("_keys", "_values"):
            old = getattr(self, name)
            # Rows that nobody has used yet take no memory: the system gives out pages at the first write.
            new = old.new_empty((self._capacity, old.shape[1], width + _SPARE_COLUMNS, old.shape[3]))
            new[: self.rows, :, :begins] = 0
            new[: self.rows, :, begins:width] = old[: self.rows, :, self.start : self.end]
            setattr(self, name, new)
        self.start, self.end = begins, width


def _nothing(like: torch.Tensor) -> torch.Tensor:
    return like.new_zeros((0, like.shape[1], 0, like.shape[3]))
