"""Rows that come, grow and go keep their keys and values, whatever the others do."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import DynamicCache

from dockyard.engines.row_cache import RowCache

CAPACITY, HEADS, SIZE = 4, 3, 2
WINDOWS = (None, 24)
LAYERS = len(WINDOWS)
Move = tuple[str, int, int]
MOVES = st.lists(
    st.tuples(st.sampled_from(["add", "step", "step", "remove"]), st.integers(1, 90), st.integers(0, CAPACITY - 1)),
    max_size=20,
)


@dataclass
class Held:
    """What must be there: keys of each row, of shape (layers, heads, columns, size); values are their negative."""

    rows: list[torch.Tensor]

    @property
    def width(self) -> int:
        return max((row.shape[2] for row in self.rows), default=0)


@given(MOVES)
def test_what_is_seen_is_what_was_put_in(moves: list[Move]) -> None:
    torch.manual_seed(0)
    cache, held = RowCache(CAPACITY, WINDOWS), Held([])
    for move, number, which in moves:
        if move == "add" and len(held.rows) < CAPACITY:
            add(cache, held, [number, 1 + number // 2][: CAPACITY - len(held.rows)], sits=which > 0)
        elif move == "remove" and held.rows:
            remove(cache, held, which % len(held.rows))
        elif move == "step" and held.rows:
            for _ in range(1 + number // 4):
                step(cache, held)


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("fails_at", range(4))
def test_nothing_changes_where_there_is_no_room(rows: int, fails_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, held = RowCache(CAPACITY, WINDOWS), Held([])
    for _ in range(rows):
        add(cache, held, [3])
        step(cache, held)
    prompts = DynamicCache()
    for layer in range(LAYERS):
        prompts.update(torch.ones(1, HEADS, 90, SIZE), torch.ones(1, HEADS, 90, SIZE), layer)
    made, calls = torch.Tensor.new_empty, iter(range(99))

    def new_empty(self: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
        if next(calls) == fails_at:
            raise MemoryError
        return made(self, size)

    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "new_empty", new_empty)
        with pytest.raises(MemoryError):
            cache.stage(prompts, [90])
    assert cache.get_seq_length() == held.width
    add(cache, held, [5])
    step(cache, held)


def add(cache: RowCache, held: Held, lengths: list[int], *, sits: bool = True) -> None:
    prompts = DynamicCache()
    width = max(lengths)
    keys = torch.randn(LAYERS, len(lengths), HEADS, width, SIZE)
    for layer in range(LAYERS):
        prompts.update(keys[layer], -keys[layer], layer)
    cache.stage(prompts, lengths)
    if not sits:  # ended before it could
        return
    cache.seat(lengths)
    held.rows += [keys[:, index, :, width - length :] for index, length in enumerate(lengths)]
    assert cache.get_seq_length() == held.width


def remove(cache: RowCache, held: Held, row: int) -> None:
    cache.remove(row)
    held.rows[row] = held.rows[-1]
    held.rows.pop()
    cache.narrow(held.width)
    assert cache.get_seq_length() == held.width


def step(cache: RowCache, held: Held) -> None:
    new = torch.randn(LAYERS, len(held.rows), HEADS, 1, SIZE)
    held.rows = [torch.cat([row, new[:, index]], dim=2) for index, row in enumerate(held.rows)]
    sizes = [layer.get_mask_sizes(1) for layer in cache.layers]
    for layer in range(LAYERS):
        keys, values = cache.update(new[layer], -new[layer], layer)
        seen = min(held.width, WINDOWS[layer] or held.width)
        assert keys.shape == values.shape == (len(held.rows), HEADS, seen, SIZE)
        assert sizes[layer] == (seen, held.width - seen)
        assert torch.isfinite(keys).all()  # what is masked, too: it is multiplied by zero
        for index, row in enumerate(held.rows):
            kept = min(row.shape[2], seen)
            assert torch.equal(keys[index, :, seen - kept :], row[layer, :, row.shape[2] - kept :])
            assert torch.equal(values[index, :, seen - kept :], -row[layer, :, row.shape[2] - kept :])
