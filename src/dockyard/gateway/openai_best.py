"""`best_of`: of the continuations of each prompt, those that the model thought most of."""

import math
from collections.abc import Sequence

from dockyard.gateway.openai_wire import CompletionRequest, Sampling
from dockyard.gateway.relay import Generation


def best(wanted: Sampling, generations: Sequence[Generation], rows: int) -> Sequence[Generation]:
    """The `n` of each prompt's `rows` with the highest mean log probability of a token, and their places as choices."""
    sent = wanted.n or 1
    if rows == sent:
        return generations
    chosen: list[Generation] = []
    for start in range(0, len(generations), rows):
        chosen += sorted(generations[start : start + rows], key=_mean_logprob, reverse=True)[:sent]
    for index, generation in enumerate(chosen):
        generation.index = index
        if isinstance(wanted, CompletionRequest) and (wanted.logprobs is None or wanted.logprobs is False):
            generation.logprobs = []  # they were for this only
    return chosen


def _mean_logprob(generation: Generation) -> float:
    """A continuation without a token is nobody's best."""
    tokens = generation.logprobs
    return sum(token.logprob for token in tokens) / len(tokens) if tokens else -math.inf
