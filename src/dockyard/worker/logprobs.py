"""An engine's chances as the protocol tells them: tokens by their bytes."""

from collections.abc import Sequence

from dockyard.engines.base import Chance
from dockyard.engines.vocabulary import Vocabulary
from dockyard.protocols.generation import Alternative, TokenLogprob
from dockyard.worker.tokenizer import Tokenizer

# What JSON has no number for; the least that OpenAI's API tells.
_LEAST = -9999.0


class Logprobs:
    """Of one continuation. `begun`: some of its tokens are out already."""

    def __init__(
        self, vocabulary: Vocabulary, tokenizer: Tokenizer, eos_token_ids: frozenset[int], *, begun: bool
    ) -> None:
        self._tokens = vocabulary.tokens
        self._tokenizer = tokenizer
        self._eos = eos_token_ids
        self._begun = begun

    def told(self, ids: Sequence[int], chances: Sequence[Chance]) -> list[TokenLogprob]:
        """`chances` may have more than `ids`."""
        told: list[TokenLogprob] = []
        for token, chance in zip(ids, chances, strict=False):
            if token not in self._eos:
                top = [Alternative(self._raw(other), _number(logprob)) for other, logprob in chance.top]
                told.append(TokenLogprob(self._raw(token), _number(chance.logprob), top))
                self._begun = True
        return told

    def _raw(self, token: int) -> bytes:
        """SentencePiece decoders leave the space out that a text begins with."""
        raw = self._tokens[token] if token < len(self._tokens) else b""
        if not self._begun and raw[:1] == b" " and not self._tokenizer.decode([token]).startswith(" "):
            return raw[1:]
        return raw


def _number(logprob: float) -> float:
    return logprob if logprob > _LEAST else _LEAST
