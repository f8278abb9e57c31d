from collections.abc import Sequence

import pytest

from dockyard.engines.base import Row, Sampling
from dockyard.engines.prefill import pick_alike, prefill_length

GREEDY, WARM = Sampling(temperature=0), Sampling(temperature=0.7)


def row(
    length: int, *, resumed: int = 0, sampling: Sampling = GREEDY, prefilled: int | None = None, max_new: int = 8
) -> Row:
    return Row([1] * length, max_new, sampling, [2] * resumed, prefilled)


@pytest.mark.parametrize(
    ("lengths", "picked"),
    [
        ([10, 10, 10], [0, 1, 2]),
        ([10, 42, 43], [0, 1]),
        ([42, 10, 43], [0, 1]),  # 43 went with 42, but not with 10
        ([1000, 1250, 1251, 800], [0, 1]),
        ([1000, 800, 1250], [0, 1]),
        ([1, 33, 34], [0, 1]),
    ],
)
def test_rows_of_similar_length_go_together(lengths: Sequence[int], picked: list[int]) -> None:
    assert pick_alike([row(length) for length in lengths], 10) == picked


def test_the_first_row_always_goes_and_no_more_than_may() -> None:
    assert pick_alike([row(500), *[row(10)] * 5], 3) == [0]
    assert pick_alike([row(10)] * 5, 3) == [0, 1, 2]


def test_only_equal_sampling_parameters_go_together() -> None:
    one_token = Sampling(temperature=1, top_k=1)
    rows = [row(5), row(5, sampling=WARM), row(5, sampling=one_token), row(5, sampling=Sampling(0.7, top_k=9))]
    assert pick_alike(rows, 10) == [0, 2]
    assert pick_alike(rows[1:], 10) == [0]


def test_a_fresh_batch_prefills_what_its_shortest_row_has_but_one() -> None:
    assert prefill_length([row(9), row(5), row(7)]) == 4
    assert prefill_length([row(1), row(5)]) == 0


def test_a_resumed_greedy_row_is_prefilled_as_it_was() -> None:
    assert prefill_length([row(9, resumed=20)]) == 8
    assert prefill_length([row(9, resumed=20, prefilled=3)]) == 3
    assert prefill_length([row(9, resumed=20, prefilled=100)]) == 8  # no replica can have done that


def test_a_resumed_row_that_draws_has_nothing_to_replay() -> None:
    assert prefill_length([row(9, resumed=20, sampling=WARM)]) == 28


def test_resumed_rows_go_with_those_that_were_prefilled_alike() -> None:
    rows = [
        row(9, resumed=20, prefilled=4),
        row(9),
        row(5, resumed=300),
        row(9, resumed=1, prefilled=4, max_new=200),
        row(9, resumed=1, prefilled=3),
    ]
    assert pick_alike(rows, 10) == [0, 2, 3]
    assert pick_alike(rows[1:], 10) == [0]
