"""Which decoder rows share a batch of CTranslate2's, and how many tokens of it are computed at once (the prefill).

The rest of a prompt is computed token by token, in step with rows that generate already. It makes a difference in the
last digits, and those decide int8 texts (ADR 9): so a greedy row that is resumed replays what was done before, with the
same prefill and one step for each known token. Then it is the same numbers to the last bit.
"""

from collections.abc import Hashable, Sequence

from dockyard.domain.batching import alike
from dockyard.engines.base import Row


def replays(row: Row) -> bool:
    return bool(row.resume) and row.sampling.greedy


def prefill_length(rows: Sequence[Row]) -> int:
    """Tokens that a batch, as `pick_alike` makes them, computes at once; all rows must know one more."""
    return _replayed(rows[0]) if replays(rows[0]) else min(map(_known, rows)) - 1


def pick_alike(rows: Sequence[Row], limit: int) -> list[int]:
    """Rows of the first one's sampling parameters and similar length; replaying ones only with their like.

    Each token of surplus costs the longer row a step, some 20 ms, in place of half a millisecond; not to batch would
    cost all of them more.
    """
    kind = _kind(rows[0])
    shortest = longest = _known(rows[0])
    picked: list[int] = []
    for index, row in enumerate(rows):
        if len(picked) == limit:
            break
        if _kind(row) != kind:
            continue
        low, high = min(shortest, _known(row)), max(longest, _known(row))
        if replays(row) or alike(low, high):
            shortest, longest = low, high
            picked.append(index)
    return picked


def same_choice(row: Row) -> Hashable:
    """Equal where one call of CTranslate2 can sample for both."""
    sampling = row.sampling
    return None if sampling.greedy else (sampling.temperature, sampling.top_p, sampling.top_k)


def _kind(row: Row) -> Hashable:
    return same_choice(row), _replayed(row) if replays(row) else None


def _known(row: Row) -> int:
    return len(row.prompt) + len(row.resume)


def _replayed(row: Row) -> int:
    """A generation that says nothing else had its whole prompt but the last token computed at once."""
    usual = len(row.prompt) - 1
    return usual if row.prefilled is None else min(row.prefilled, usual)
