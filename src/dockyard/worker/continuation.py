"""One continuation as text: from the ids an engine makes to what is sent, where it ends and why."""

from collections.abc import Iterable, Sequence

from dockyard.protocols.generation import FinishReason
from dockyard.worker.detokenizer import Detokenizer
from dockyard.worker.stop_sequences import StopSequences
from dockyard.worker.tokenizer import Tokenizer


class Continuation:
    """`finish` is None as long as more may come; `completion_tokens` counts all but an end-of-sequence token.

    The text held back until the end goes out with the id that ended it, an end-of-sequence id included. So ids alone
    tell another replica exactly which text has been sent.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, stop: Sequence[str], max_tokens: int, eos_token_ids: frozenset[int]
    ) -> None:
        self.finish: FinishReason | None = "length" if max_tokens == 0 else None
        self.completion_tokens = 0
        self._max_tokens = max_tokens
        self._eos = eos_token_ids
        self._detokenizer = Detokenizer(tokenizer)
        self._stop = StopSequences(stop)

    def feed(self, ids: Iterable[int]) -> tuple[str, list[int]]:
        """Take new tokens: the text to send and the ids behind it. Tokens after the end are dropped."""
        text: list[str] = []
        taken: list[int] = []
        for token in ids:
            if self.finish is not None:
                break
            piece, counts = self._take(token)
            text.append(piece)
            if counts or piece:
                taken.append(token)
        return "".join(text), taken

    def end(self) -> str:
        """The engine made no more tokens than this: the text still held back."""
        return self._ended("length") if self.finish is None else ""

    def _take(self, token: int) -> tuple[str, bool]:
        """The text to send, and whether the token counts."""
        if token in self._eos:
            return self._ended("stop"), False
        self.completion_tokens += 1
        text = self._stop.push(self._detokenizer.push(token))
        if self._stop.hit:
            self.finish = "stop"
        elif self.completion_tokens >= self._max_tokens:
            text += self._ended("length")
        return text, True

    def _ended(self, reason: FinishReason) -> str:
        text = self._stop.push(self._detokenizer.flush())
        self.finish = "stop" if self._stop.hit else reason
        return text + self._stop.flush()
