"""When what CTranslate2 tells token by token goes to the event loop: with the last row of a step."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

from dockyard.engines.base import Chance
from dockyard.engines.ctranslate2 import StepByStep


@dataclass
class Out:
    """An `Outlet`; `ends`: how many tokens each row may have. `flushed`: what each flush carried, tokens being rows."""

    ends: Sequence[int]
    flushed: list[list[int]] = field(default_factory=list[list[int]])
    _held: list[int] = field(default_factory=list[int])
    _taken: list[int] = field(default_factory=list[int])

    def __call__(self, index: int, token: int, chance: Chance | None = None) -> bool:
        self._held.append(index)
        self._taken.append(index)
        return self._taken.count(index) == self.ends[index]

    def fail(self, index: int, error: Exception) -> None: ...

    def flush(self) -> None:
        if self._held:
            self.flushed.append(self._held[:])
            self._held.clear()


def run(steps: Sequence[Sequence[int]], ends: Sequence[int], known: Sequence[int]) -> list[list[int]]:
    out = Out(ends)
    told = StepByStep(out, known)
    for number, step in enumerate(steps):
        for index in step:
            told(SimpleNamespace(step=number, batch_id=index, token_id=0, is_last=False))
    out.flush()
    return out.flushed


def test_rows_come_in_and_leave_and_a_step_goes_with_its_last_row() -> None:
    steps = ((2,), (1, 2), (1, 2), (0, 1, 2), (0, 1), (0, 1), (0,), (0,))
    assert run(steps, ends=(5, 5, 4), known=(0, 0, 0)) == [
        [2],
        [1, 2],
        [1, 2],
        [0, 1, 2],
        [0],  # row 2 has ended: nobody knows who is last
        [1],
        [0, 1],
        [0],
        [0],
    ]


def test_no_token_waits_for_the_next_step_while_all_go_on() -> None:
    assert run([(0, 1, 2)] * 3, ends=(9, 9, 9), known=(0, 0, 0)) == [[0], [1], [2], [0, 1, 2], [0, 1, 2]]


def test_tokens_that_are_known_are_no_news_but_their_row_may_end_the_step() -> None:
    assert run([(0, 1)] * 4, ends=(9, 9), known=(0, 2)) == [[0], [0], [0, 1], [0, 1]]


def test_company_is_ended_at_once_and_tells_nothing() -> None:
    out = Out(ends=(9, 9))
    told = StepByStep(out, [0, 0])
    stops = [
        told(SimpleNamespace(step=step, batch_id=index, token_id=0, is_last=False))
        for step, index in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1))
    ]
    assert stops == [False, False, True, False, False]
    assert out.flushed == [[0], [1], [0, 1]]
