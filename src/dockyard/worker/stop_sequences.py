"""Cuts a text at the first stop sequence that completes, however the text is cut into pieces."""

from collections.abc import Sequence


class StopSequences:
    """Feed it the pieces; it holds back whatever may be the beginning of a stop sequence.

    Of several sequences the one that completes first counts, and of those that complete at the same character the
    longest: so the outcome does not depend on where the pieces begin.
    """

    def __init__(self, sequences: Sequence[str]) -> None:
        self._sequences = tuple(sequence for sequence in sequences if sequence)
        self._held = ""
        self.hit = False

    def push(self, piece: str) -> str:
        """The text that may go out. After a hit nothing does any more."""
        if self.hit:
            return ""
        if not self._sequences:
            return piece
        text = self._held + piece
        cut = self._first_hit(text)
        if cut is not None:
            self.hit = True
            self._held = ""
            return text[:cut]
        keep = self._possible_beginning(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """The text held back, once it is sure that no more comes."""
        held, self._held = self._held, ""
        return held

    def _first_hit(self, text: str) -> int | None:
        """Where the sequence starts that is the first to be complete."""
        hits: list[tuple[int, int]] = []
        for sequence in self._sequences:
            start = text.find(sequence)
            if start >= 0:
                hits.append((start + len(sequence), start))
        return min(hits)[1] if hits else None

    def _possible_beginning(self, text: str) -> int:
        """Length of the longest end of `text` with which a sequence begins."""
        longest = max(len(sequence) for sequence in self._sequences) - 1
        for length in range(min(longest, len(text)), 0, -1):
            end = text[len(text) - length :]
            if any(sequence.startswith(end) for sequence in self._sequences):
                return length
        return 0
