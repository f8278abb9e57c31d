"""Which continuations are the best, and what is told of them."""

from dataclasses import replace
from typing import Any

import msgspec
from tests.unit.gateway.test_admission import ROUTE
from tests.unit.gateway.test_openai_checks import TEXT

from dockyard.gateway.openai_best import best
from dockyard.gateway.openai_checks import rows_of_prompt, text_generations
from dockyard.gateway.relay import Generation
from dockyard.protocols.generation import TokenLogprob


def made(of_rows: list[list[float]], **fields: Any) -> tuple[Any, list[Generation]]:
    """The rows that a request asks for, with these log probabilities of their tokens."""
    wanted = TEXT.decode(msgspec.json.encode({"model": "Ship", "prompt": ["a", "b"], **fields}))
    requests = text_generations(wanted, replace(ROUTE, engine="transformers"), "id")
    generations = [Generation(request, index) for index, request in enumerate(requests)]
    for generation, values in zip(generations, of_rows, strict=True):
        generation.logprobs = [TokenLogprob(b"x", value, []) for value in values]
    return wanted, generations


def test_the_best_of_each_prompt_by_the_mean_of_their_tokens() -> None:
    wanted, rows = made(
        [[-1.0, -1.0, -1.0], [-2.0], [], [-0.5], [-0.1, -3.0], [-1.0]],
        n=2,
        best_of=3,
    )
    assert {row.request.logprobs for row in rows} == {0}
    chosen = best(wanted, rows, rows_of_prompt(wanted))
    assert chosen == [rows[0], rows[1], rows[3], rows[5]]
    assert [row.index for row in chosen] == [0, 1, 2, 3]
    assert all(not row.logprobs for row in chosen)


def test_logprobs_that_were_asked_for_stay() -> None:
    wanted, rows = made([[-1.0], [-2.0], [-2.0], [-1.0]], best_of=2, logprobs=0)
    assert {row.request.logprobs for row in rows} == {0}
    assert [row.logprobs[0].logprob for row in best(wanted, rows, 2)] == [-1.0, -1.0]


def test_without_best_of_all_are_sent_as_they_are() -> None:
    wanted, rows = made([[]] * 4, n=2)
    assert {row.request.logprobs for row in rows} == {None}
    assert best(wanted, rows, rows_of_prompt(wanted)) is rows
