"""Keys and values of rows that come and go, side by side in a cache of Transformers' own kind.

All rows end in the same column, where the next token goes; a shorter row begins further right, and what is left of it
is masked. A row that comes is copied in, one that goes is overwritten by the last: nothing else moves. A step writes a
column where the library's own cache copies all of it.
"""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

_SPARE_COLUMNS = 64  # so many steps pass until the columns are copied to a place with more


class RowCache(Cache):
    """For at most `capacity` rows. Rows are numbered without gaps; of a cache without rows nothing is kept.

    `windows`: for each layer, how far it looks back, the token itself counted; None: to the beginning. No more is kept.
    """

    def __init__(self, capacity: int, windows: Sequence[int | None]) -> None:
        super().__init__(layers=[])
        self._capacity = capacity
        self._windows = windows
        self._layers: list[_Layer] = []

    def stage(self, prompts: DynamicCache, lengths: Sequence[int]) -> None:
        """Copy the rows of `prompts`, of which the last `lengths` columns count, to behind the last row. What is seen
        stays as it is, also when memory is short and this fails. Each layer of `prompts` is empty once it is copied:
        twice all of it would be too much.
        """
        layers = self._layers or [_Layer(self._capacity, window) for window in self._windows]
        for layer, prompt in zip(layers, prompts.layers, strict=True):
            layer.stage(*_states(prompt), lengths)
            _empty(prompt)
        self._hold(layers)

    def seat(self, lengths: Sequence[int]) -> None:
        """Those that were staged last are rows from here on."""
        for layer in self._layers:
            layer.rows += len(lengths)
            layer.width = max(*lengths, layer.width)

    def remove(self, row: int) -> None:
        """The last row takes its number."""
        for layer in self._layers:
            layer.remove(row)

    def narrow(self, width: int) -> None:
        """No row has more than `width` columns; 0: there is none."""
        if width == 0:
            self._hold([])
        for layer in self._layers:
            layer.width = width

    def _hold(self, layers: "list[_Layer]") -> None:
        self._layers = layers
        self.layers = [*layers]


class _Layer(DynamicLayer):
    """The model sees the `held` columns before `end` of the first `rows` rows; `width` is what the longest would have
    without a window.
    """

    def __init__(self, capacity: int, window: int | None) -> None:
        super().__init__()
        self.is_sliding = window is not None
        self.rows = self.width = self.end = 0
        self._most = sys.maxsize if window is None else window - 1
        self._capacity = capacity
        self._keys: Any = None
        self._values: Any = None

    @property
    def held(self) -> int:
        return min(self.width, self._most)

    def stage(self, keys: torch.Tensor, values: torch.Tensor, lengths: Sequence[int]) -> None:
        """Both of shape (rows, heads, columns, size of a head)."""
        if self._keys is None:
            self.lazy_initialization(keys, values)
            self._keys, self._values = _nothing(keys), _nothing(values)
        width, rows = min(max(*lengths, self.width), self._most), self.rows + len(lengths)
        if self.end < width or rows > self._keys.shape[0]:
            self._make_room(width, rows)
        for buffer, new in ((self._keys, keys), (self._values, values)):
            for index, length in enumerate(lengths):
                kept = min(length, self._most)
                row, begins = buffer[self.rows + index], self.end - kept
                row[:, :begins] = 0  # what is masked is multiplied by zero: it must be a number
                row[:, begins : self.end] = new[index, :, new.shape[2] - kept :]

    def remove(self, row: int) -> None:
        self.rows -= 1
        if row < self.rows:
            for buffer in (self._keys, self._values):
                buffer[row, :, : self.end] = buffer[self.rows, :, : self.end]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.end == self._keys.shape[-2]:
            self._make_room(self.held, self.rows)
        end = self.end + key_states.shape[-2]  # by one: prompts are read in a cache of their own
        self._keys[: self.rows, :, self.end : end] = key_states
        self._values[: self.rows, :, self.end : end] = value_states
        seen = slice(self.end - self.held, end)
        self.width, self.end = self.width + end - self.end, end
        return self._keys[: self.rows, :, seen], self._values[: self.rows, :, seen]

    def get_seq_length(self) -> int:
        return self.width

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many columns a step sees, and how many it does not, before those."""
        return self.held + query_length, self.width - self.held

    def _make_room(self, width: int, rows: int) -> None:
        """For `width` columns and some steps; the held ones come last of them."""
        # On a CPU rows that nobody has used yet take no memory: the system gives out pages at the first write.
        rows = self._capacity if self._keys.device.type == "cpu" else rows
        begins = width - self.held
        made: list[torch.Tensor] = []
        for old in (self._keys, self._values):
            new = old.new_empty((rows, old.shape[1], width + _SPARE_COLUMNS, old.shape[3]))
            new[: self.rows, :, :begins] = 0
            new[: self.rows, :, begins:width] = old[: self.rows, :, self.end - self.held : self.end]
            made.append(new)
        self._keys, self._values = made
        self.end = width


def _states(prompt: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return prompt.keys, prompt.values


def _empty(prompt: Any) -> None:
    prompt.keys = prompt.values = None


def _nothing(like: torch.Tensor) -> torch.Tensor:
    return like.new_zeros((0, like.shape[1], 0, like.shape[3]))
