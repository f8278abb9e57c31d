"""Logprobs as the two routes tell them, in OpenAI's shapes."""

import codecs
from collections.abc import Sequence

import msgspec

from dockyard.protocols.generation import TokenLogprob


class AlternativeOut(msgspec.Struct):
    """A token that might have been chosen."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprobOut(msgspec.Struct):
    """A token of the reply. `top_logprobs` are the most probable ones at its place."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[AlternativeOut]


class ChatLogprobs(msgspec.Struct):
    """One entry for each token of the reply, those of a stop sequence included."""

    content: list[TokenLogprobOut]
    refusal: None = None


class TextLogprobs(msgspec.Struct):
    """One entry in each list for each token. `text_offset`: where the token begins, in characters of the whole text."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


def chat_logprobs(told: Sequence[TokenLogprob]) -> ChatLogprobs | None:
    return (
        ChatLogprobs(
            [
                TokenLogprobOut(
                    _text(one.raw),
                    one.logprob,
                    list(one.raw),
                    [AlternativeOut(_text(other.raw), other.logprob, list(other.raw)) for other in one.top],
                )
                for one in told
            ]
        )
        if told
        else None
    )


class TextOffsets:
    """Tells the tokens of one text, whose pieces come one after the other."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._length = 0

    def told(self, tokens: Sequence[TokenLogprob]) -> TextLogprobs | None:
        if not tokens:
            return None
        out = TextLogprobs([], [], [], [])
        for one in tokens:
            out.tokens.append(_text(one.raw))
            out.token_logprobs.append(one.logprob)
            # The token itself is told, too, as one more where it is not among the most probable.
            out.top_logprobs.append(
                {_text(other.raw): other.logprob for other in one.top} | {_text(one.raw): one.logprob}
            )
            out.text_offset.append(self._length)
            self._length += len(self._decoder.decode(one.raw))
        return out


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
