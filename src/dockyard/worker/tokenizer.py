"""Text to ids and back: a Hugging Face `tokenizer.json`, or bytes for models without one (echo)."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from dockyard.errors import Failed, Reason
from dockyard.protocols.spares import MOST_READ_AHEAD

_read_ahead: dict[Path, "Tokenizer"] = {}


class Tokenizer(Protocol):
    vocab_size: int

    def encode(self, text: str, *, special: bool) -> list[int]:
        """`special`: with the tokens that the model wants around a text, as Transformers adds them."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Special tokens left out; bytes that are no UTF-8 come out as U+FFFD."""
        ...

    def special_ids(self, texts: Iterable[str]) -> dict[int, str]:
        """Those of `texts` that are one token each which `decode` leaves out, by id."""
        ...


class ByteTokenizer:
    """UTF-8 bytes are the ids 0 to 255; ids above are special and have no text."""

    vocab_size = 257

    def encode(self, text: str, *, special: bool) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i for i in ids if i < 256).decode(errors="replace")

    def special_ids(self, texts: Iterable[str]) -> dict[int, str]:
        return {}


class FileTokenizer:
    """`tokenizer.json` as it is, but for truncation and padding, which would change prompts without a word."""

    def __init__(self, path: Path) -> None:
        # Imported here: the echo engine does without.
        import tokenizers

        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise Failed(
                f"{path.name} cannot be loaded: {error}; import the model again", reason=Reason.TOKENIZER_UNREADABLE
            ) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.vocab_size = self._tokenizer.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str, *, special: bool) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=special).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True)

    def special_ids(self, texts: Iterable[str]) -> dict[int, str]:
        known = {self._tokenizer.token_to_id(text): text for text in texts}
        return {token: text for token, text in known.items() if token is not None and not self.decode([token])}


def load_tokenizer(model_dir: Path) -> Tokenizer:
    """The one that was read ahead, by the process that this one was forked from, or else from the file."""
    known = _read_ahead.get(model_dir)
    if known is not None:
        return known
    path = model_dir / "tokenizer.json"
    return FileTokenizer(path) if path.exists() else ByteTokenizer()


def read_ahead(model_dir: Path) -> None:
    """Keep the model's tokenizer at hand, one of the last `MOST_READ_AHEAD`. Raises what `load_tokenizer` does."""
    _read_ahead[model_dir] = load_tokenizer(model_dir)
    while len(_read_ahead) > MOST_READ_AHEAD:
        del _read_ahead[next(iter(_read_ahead))]
