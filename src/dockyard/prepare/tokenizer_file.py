"""`tokenizer.json`: whether it can be loaded, and the id of a token in it."""

from pathlib import Path

from tokenizers import Tokenizer

from dockyard.errors import Failed, Reason


def check_tokenizer(content: bytes) -> None:
    """Raise `Failed` (TOKENIZER_UNREADABLE) unless the library that replicas use loads it."""
    try:
        Tokenizer.from_buffer(content)
    except BaseException as error:  # bare `Exception`, or the panic of its Rust side, which is not even that
        raise Failed(
            f"tokenizer.json cannot be loaded: {str(error)[:200]}; fetch the file again",
            reason=Reason.TOKENIZER_UNREADABLE,
        ) from error


def find_token_id(path: Path, token: str) -> int | None:
    return Tokenizer.from_file(str(path)).token_to_id(token)
