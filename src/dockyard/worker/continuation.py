"""One continuation as text: from the ids an engine makes to what is sent, where it ends and why."""

from collections.abc import Iterable, Mapping, Sequence

from dockyard.protocols.generation import FinishReason, ToolCall
from dockyard.worker.detokenizer import Detokenizer
from dockyard.worker.stop_sequences import StopSequences
from dockyard.worker.tokenizer import Tokenizer
from dockyard.worker.tool_calls import ToolCalls


class Continuation:
    """`finish` is None as long as more may come; `completion_tokens` counts all but an end-of-sequence token.

    The text held back until the end goes out with the id that ended it, an end-of-sequence id included. So ids alone
    tell another replica exactly which text has been sent.

    With `tools`, calls are taken out of the text; `marks` are the special tokens, by id, that calls are told by.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        stop: Sequence[str],
        max_tokens: int,
        eos_token_ids: frozenset[int],
        tools: ToolCalls | None = None,
        marks: Mapping[int, str] | None = None,
    ) -> None:
        self.finish: FinishReason | None = "length" if max_tokens == 0 else None
        self.completion_tokens = 0
        self._max_tokens = max_tokens
        self._eos = eos_token_ids
        self._tokenizer = tokenizer
        self._detokenizer = Detokenizer(tokenizer)
        self._stop = StopSequences(stop)
        self._tools = tools
        self._marks = marks or {}
        self._calls_told = 0

    def feed(self, ids: Iterable[int]) -> tuple[str, list[int]]:
        """Take new tokens: the text to send and the ids behind it. Tokens after the end are dropped."""
        text: list[str] = []
        taken: list[int] = []
        for token in ids:
            if self.finish is not None:
                break
            piece, told = self._take(token)
            text.append(piece)
            if told or piece:
                taken.append(token)
        return "".join(text), taken

    def take_calls(self) -> list[ToolCall]:
        """The calls of tools that came since this was asked last."""
        if self._tools is None:
            return []
        calls = self._tools.made[self._calls_told :]
        self._calls_told += len(calls)
        return calls

    def end(self) -> str:
        """The engine made no more tokens than this: the text still held back."""
        return self._ended("length") if self.finish is None else ""

    def _take(self, token: int) -> tuple[str, bool]:
        """The text to send, and whether the token is told even without one."""
        if token in self._eos:
            before = self._calls
            return self._ended("stop"), self._calls > before
        self.completion_tokens += 1
        text = self._without_calls(self._stop.push(self._read(token)))
        if self._stop.hit or (self._tools is not None and self._tools.complete):
            text += self._finished("stop")
        elif self.completion_tokens >= self._max_tokens:
            text += self._ended("length")
        return text, True

    def _read(self, token: int) -> str:
        if token not in self._marks:
            return self._detokenizer.push(token)
        before, self._detokenizer = self._detokenizer.flush(), Detokenizer(self._tokenizer)
        return before + self._marks[token]

    def _ended(self, reason: FinishReason) -> str:
        text = self._stop.push(self._detokenizer.flush())
        text = self._without_calls(text + self._stop.flush())
        return text + self._finished("stop" if self._stop.hit else reason)

    def _finished(self, reason: FinishReason) -> str:
        self.finish = reason
        if self._tools is None:
            return ""
        text = self._tools.flush()
        if reason == "stop" and self._calls:
            self.finish = "tool_calls"
        return text

    @property
    def _calls(self) -> int:
        return 0 if self._tools is None else len(self._tools.made)

    def _without_calls(self, text: str) -> str:
        return text if self._tools is None else self._tools.push(text)
