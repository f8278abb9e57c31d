"""How often a job is asked for: soon after a change, seldom while nothing moves."""

from typing import Any, cast

import pytest

from dockyard.cli.client import Client
from dockyard.cli.failures import Unreachable
from dockyard.cli.watch import LONGEST_S, SHORTEST_S, UNREACHABLE_FOR_S, job_states


class Scripted:
    """A client whose answers are given; an exception among them is raised. The last one is given for ever."""

    def __init__(self, *answers: dict[str, Any] | Exception) -> None:
        self.answers = list(answers)

    def get(self, *_: str) -> dict[str, Any]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def job(percentage: int, status: str = "IN_PROGRESS") -> dict[str, Any]:
    return {"status": status, "percentageComplete": percentage}


def watch(*answers: dict[str, Any] | Exception) -> tuple[list[int], list[float]]:
    """The percentages shown and the waits between the polls."""
    waits: list[float] = []
    states = job_states(cast(Client, Scripted(*answers)), "ds-1", waits.append)
    return [state["percentageComplete"] for state in states], waits


def test_each_change_is_shown_once_and_the_end_last() -> None:
    shown, waits = watch(job(1), job(1), job(2), job(2), job(100, "SUCCESS"))

    assert shown == [1, 2, 100]
    assert len(waits) == 4


def test_the_interval_grows_while_nothing_changes_and_shrinks_at_a_change() -> None:
    _, waits = watch(*[job(1)] * 20, job(2), job(100, "SUCCESS"))

    assert waits[:20] == sorted(waits[:20])
    assert waits[0] == SHORTEST_S
    assert waits[19] == LONGEST_S
    assert waits[20] == SHORTEST_S


def test_a_server_that_stays_away_is_given_up() -> None:
    waits: list[float] = []
    states = job_states(cast(Client, Scripted(job(1), Unreachable("http://x", "away"))), "ds-1", waits.append)

    with pytest.raises(Unreachable):
        list(states)

    assert sum(waits) >= UNREACHABLE_FOR_S


def test_a_server_that_was_never_there_is_not_waited_for() -> None:
    with pytest.raises(Unreachable):
        watch(Unreachable("http://x", "away"))
