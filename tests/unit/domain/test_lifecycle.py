"""The tables are whole: every state is listed, everything is reachable, whatever is not listed raises."""

from enum import StrEnum
from itertools import product
from typing import Any

import pytest

from dockyard.domain.lifecycle import MACHINES, IllegalTransition, Machine


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_each_table_lists_every_state_and_reaches_it(machine: Machine[Any]) -> None:
    kind: type[StrEnum] = type(machine.initial)
    states = set(kind)
    assert set(machine.table) == states
    reached, frontier = {machine.initial}, [machine.initial]
    while frontier:
        for after in machine.table[frontier.pop()]:
            if after not in reached:
                reached.add(after)
                frontier.append(after)
    assert reached == states
    assert any(machine.is_final(state) for state in states)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_what_is_not_listed_raises_and_says_what_is(machine: Machine[Any]) -> None:
    for before, after in product(machine.table, repeat=2):
        if after in machine.table[before]:
            machine.check(before, after)
            continue
        with pytest.raises(IllegalTransition, match=str(before)):
            machine.check(before, after)
