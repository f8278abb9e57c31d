"""What `Retry-After` says of a queue that moves, stands, or was idle."""

import pytest

from dockyard.gateway.departures import WINDOW, Departures


def moved(seconds_each: float, count: int, now: float = 0.0) -> tuple[Departures, float]:
    """`count` left, `seconds_each` apart, and others still wait."""
    departures = Departures()
    departures.begin(now)
    for _ in range(count):
        now += seconds_each
        departures.count(now, left=1)
    return departures, now


@pytest.mark.parametrize(
    ("seconds_each", "waiting", "expected"),
    [(0.125, 40, 5), (0.001, 1000, 1), (0.001, 1001, 2), (0.5, 3, 2), (1.0, 1000, 60), (0.0001, 1, 1)],
)
def test_the_time_that_those_who_wait_will_take(seconds_each: float, waiting: int, expected: int) -> None:
    departures, now = moved(seconds_each, 8)
    assert departures.retry_after_s(now, waiting, 60) == expected


def test_only_the_last_departures_count() -> None:
    departures, now = moved(10.0, 5)
    for _ in range(WINDOW):
        now += 0.25
        departures.count(now, left=1)
    assert departures.retry_after_s(now, 20, 60) == 5


def test_a_queue_that_has_stopped_is_said_to_be_slower_and_slower() -> None:
    departures, now = moved(0.1, 10)
    assert departures.retry_after_s(now, 10, 60) == 1
    assert departures.retry_after_s(now + 9.0, 10, 60) == 10
    assert departures.retry_after_s(now + 99.0, 10, 60) == 60


def test_an_idle_hour_is_not_an_hour_without_departures() -> None:
    departures, now = moved(0.5, 4)
    departures.count(now + 0.5, left=0)
    later = now + 3600.0
    departures.begin(later)
    departures.begin(later + 0.1)  # one more waits: the first one counts
    assert departures.retry_after_s(later, 10, 60) == 5


def test_as_long_again_as_the_queue_has_stood_while_none_has_left() -> None:
    departures = Departures()
    assert departures.retry_after_s(50.0, 3, 60) == 1
    departures.begin(100.0)
    assert departures.retry_after_s(100.0, 3, 60) == 1
    assert departures.retry_after_s(107.5, 3, 60) == 8
    assert departures.retry_after_s(500.0, 3, 60) == 60


def test_never_less_than_a_second() -> None:
    departures, now = moved(0.001, 3)
    assert departures.retry_after_s(now, 1, 0) == 1
