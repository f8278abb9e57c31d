"""How rows of a batch choose their next tokens, each by its own parameters: greedy or drawn, seeds, constraints."""

import random
from collections.abc import Sequence

import torch

from dockyard.engines.base import Chance, Row
from dockyard.engines.constraint_mask import bar_
from dockyard.engines.lane import Emit
from dockyard.errors import DockyardError, Failed, Reason

# Candidates sorted at each step whatever the rows ask for, so that a row's draw does not depend on its neighbours.
_CANDIDATES = 100


class Chooser:
    """One row's. Its draws are a generator of its own: the same seed gives the same ones whatever else is in the batch.

    Raises what `Constraint.begin` raises.
    """

    def __init__(self, row: Row) -> None:
        self.sampling = row.sampling
        self.logprobs = row.logprobs
        self.guide = row.constraint.begin(row.resume) if row.constraint else None
        self._chance = random.Random(row.sampling.seed)
        for _ in row.resume:  # a resumed row goes on as if undisturbed, past the draws that its tokens took
            self._chance.random()

    def draw(self) -> float:
        """From 0 to 1."""
        return self._chance.random()


class Picker:
    """Chooses for all rows of a batch and emits what it chose.

    Rows with a constraint or with logprobs cost what they ask for; the others, nothing.
    """

    def __init__(self, choosers: Sequence[Chooser], emit: Emit, never: Sequence[int]) -> None:
        self.done = [False] * len(choosers)
        self._never = list(never)
        self._emit = emit
        self._choosers = choosers
        samplings = [chooser.sampling for chooser in choosers]
        self._all_greedy = all(sampling.greedy for sampling in samplings)
        self._greedy = torch.tensor([sampling.greedy for sampling in samplings])
        self._temperature = torch.tensor([[sampling.temperature or 1.0] for sampling in samplings])
        self._top_p = torch.tensor([[sampling.top_p] for sampling in samplings])
        self._top_k = torch.tensor([[sampling.top_k] for sampling in samplings])
        self._guides = {index: chooser.guide for index, chooser in enumerate(choosers) if chooser.guide}
        self._tops = {index: chooser.logprobs for index, chooser in enumerate(choosers) if chooser.logprobs is not None}

    def pick(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores of shape (rows, vocabulary) → tokens of shape (rows), on the CPU. Notes in `done` who has ended."""
        logits = scores.float().cpu()
        logprobs = self._logprobs(logits)
        if self._never:
            logits[:, self._never] = float("-inf")
        if self._guides:
            self._constrain(logits)
        chosen = logits.argmax(dim=-1)
        if not self._all_greedy:
            chosen = torch.where(self._greedy, chosen, self._drawn(logits))
        for index, token in enumerate(chosen.tolist()):
            if not self.done[index]:
                chance = _chance_of(logprobs[index], token, self._tops[index]) if index in logprobs else None
                self.done[index] = self._emit(index, token, chance)
                if index in self._guides and not self.done[index]:
                    self._follow(index, token)
        return chosen

    def _logprobs(self, logits: torch.Tensor) -> dict[int, torch.Tensor]:
        """Of the rows that want them, before anything is taken out."""
        return {index: logits[index].log_softmax(dim=-1) for index in self._tops if not self.done[index]}

    def _constrain(self, logits: torch.Tensor) -> None:
        """Leave constrained rows what their schemas allow; a row that cannot go on ends, and no other."""
        for index, guide in self._guides.items():
            if self.done[index]:
                continue
            try:
                if not bar_(logits[index], guide.allowed()):
                    raise Failed("the schema allows no token that the model has", reason=Reason.ENGINE_FAILED)
            except DockyardError as error:
                self._fail(index, error)

    def _follow(self, index: int, token: int) -> None:
        try:
            self._guides[index].take(token)
        except DockyardError as error:
            self._fail(index, error)

    def _fail(self, index: int, error: DockyardError) -> None:
        self._emit.fail(index, error)
        self.done[index] = True

    def _drawn(self, logits: torch.Tensor) -> torch.Tensor:
        """One token per row: temperature, then top-k, then top-p, as Transformers' own warpers; then one draw."""
        count = min(logits.shape[-1], max(_CANDIDATES, int(self._top_k.max())))
        values, tokens = logits.topk(count, dim=-1)
        values = (values / self._temperature).masked_fill(torch.arange(count) >= self._top_k, float("-inf"))
        shares = values.softmax(dim=-1)
        before = shares.cumsum(dim=-1) - shares  # what the more probable candidates hold together
        shares = shares.masked_fill((before >= self._top_p) & (torch.arange(count) > 0), 0.0)
        draws = torch.tensor([[chooser.draw()] for chooser in self._choosers])
        sums = shares.double().cumsum(dim=-1)
        picks = (sums <= draws * sums[:, -1:]).sum(dim=-1, keepdim=True)
        return tokens.gather(1, picks.clamp_(max=count - 1)).squeeze(1)


def _chance_of(logprobs: torch.Tensor, token: int, count: int) -> Chance:
    top = logprobs.topk(min(count, logprobs.shape[-1]))
    return Chance(logprobs[token].item(), list(zip(top.indices.tolist(), top.values.tolist(), strict=True)))
