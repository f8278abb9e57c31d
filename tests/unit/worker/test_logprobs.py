from collections.abc import Iterable, Sequence

from dockyard.engines.base import Chance
from dockyard.engines.vocabulary import Vocabulary
from dockyard.protocols.generation import Alternative, TokenLogprob
from dockyard.worker.logprobs import Logprobs

WORDS = Vocabulary([b" the", b" ship", b"</s>"], frozenset({2}), spells=True)


class StripsSpace:
    """As SentencePiece decodes: no space at the start."""

    vocab_size = 3

    def encode(self, text: str, *, special: bool) -> list[int]:
        raise NotImplementedError

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(WORDS.tokens[token] for token in ids).decode().removeprefix(" ")

    def special_ids(self, texts: Iterable[str]) -> dict[int, str]:
        raise NotImplementedError


def told(ids: list[int], chances: list[Chance], *, begun: bool = False) -> list[TokenLogprob]:
    return Logprobs(WORDS, StripsSpace(), frozenset({2}), begun=begun).told(ids, chances)


def test_the_space_that_the_text_does_not_begin_with_is_left_out() -> None:
    chances = [Chance(-1.0, [(1, -0.5)]), Chance(-2.0)]
    assert told([0, 1], chances) == [
        TokenLogprob(b"the", -1.0, [Alternative(b"ship", -0.5)]),
        TokenLogprob(b" ship", -2.0, []),
    ]
    assert told([0], chances, begun=True)[0].raw == b" the"


def test_an_end_of_sequence_and_what_is_no_number_are_not_told() -> None:
    assert told([0, 2], [Chance(float("-inf")), Chance(-1.0)]) == [TokenLogprob(b"the", -9999.0, [])]


def test_a_token_that_the_tokenizer_does_not_know_has_no_bytes() -> None:
    assert told([7], [Chance(-1.0)])[0].raw == b""
