"""Ids to text as they come. All pieces together are what decoding all ids at once gives."""

from dockyard.worker.tokenizer import Tokenizer

_HALF = "\ufffd"  # how a decoder renders the bytes of a character that is not complete yet


class Detokenizer:
    """Decodes a window of ids, not one id: what a token reads as may depend on the one before it.

    A leading space, for one: SentencePiece decoders drop it at the start of a text, and would at each token's. So the
    window starts with ids whose text is out already, and only what goes beyond that text is new.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []
        self._known_ids = 0  # ids of the window whose text is out
        self._known_text = ""  # … and that text

    def push(self, token: int) -> str:
        """The text that became certain with this token; empty while a character is half there."""
        self._window.append(token)
        text = self._tokenizer.decode(self._window)
        if text.endswith(_HALF) or len(text) <= len(self._known_text):
            return ""
        new = text[len(self._known_text) :]
        self._slide()
        return new

    def flush(self) -> str:
        """What is left at the end, but for a half character."""
        text = self._tokenizer.decode(self._window).rstrip(_HALF)
        return text[len(self._known_text) :]

    def _slide(self) -> None:
        """Keep, of the ids whose text is out, those that came last."""
        self._window = self._window[self._known_ids :]
        self._known_ids = len(self._window)
        self._known_text = self._tokenizer.decode(self._window)
