"""A model's tokens as the bytes that they stand for: what constraints are made of, and what logprobs are told by."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

# SentencePiece's sign for a space.
_SPACE = "\u2581"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`tokens` by id, empty where an id has none. `spells`: a text is the bytes of its tokens, one after the other.

    It does not where the tokenizer writes between its tokens, as WordPiece its spaces.
    """

    tokens: list[bytes]
    special: frozenset[int]
    spells: bool


def read_vocabulary(model_dir: Path, *, at_least: int = 0) -> Vocabulary:
    """Of the folder's `tokenizer.json`, or of bytes where there is none, as the worker's tokenizer has it."""
    path = model_dir / "tokenizer.json"
    if not path.exists():
        return Vocabulary([bytes([i]) for i in range(256)] + [b""] * max(0, at_least - 256), frozenset(), spells=True)
    found: dict[str, Any] = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    spelled = _spelling(found)
    tokens: dict[int, bytes] = {}
    for token_id, piece in _pieces(found["model"].get("vocab") or {}):
        tokens[token_id] = piece.encode("utf-8", "replace") if spelled is None else spelled(piece)
    added: list[dict[str, Any]] = found.get("added_tokens") or []
    tokens |= {token["id"]: token["content"].encode() for token in added}
    size = max(max(tokens, default=-1) + 1, at_least)
    special = frozenset(token["id"] for token in added if token.get("special"))
    return Vocabulary([tokens.get(token_id, b"") for token_id in range(size)], special, spelled is not None)


def _pieces(vocabulary: Any) -> Iterator[tuple[int, str]]:
    """BPE maps tokens to ids; Unigram lists them with their scores."""
    if isinstance(vocabulary, dict):
        yield from ((token_id, piece) for piece, token_id in vocabulary.items())
    else:
        yield from ((token_id, entry[0]) for token_id, entry in enumerate(vocabulary))


def _spelling(tokenizer: dict[str, Any]) -> Callable[[str], bytes] | None:
    """How a token reads, by the parts of the tokenizer's decoder; None if these are not known here."""
    parts = {part["type"]: part for part in _parts(tokenizer.get("decoder"))}
    if "ByteLevel" in parts:
        return _of_byte_level
    space = parts["Metaspace"].get("replacement", _SPACE) if "Metaspace" in parts else _SPACE
    if "ByteFallback" in parts:
        return lambda piece: _fallback(piece, space)
    if "Metaspace" in parts or _SPACE in str(parts.get("Replace", {}).get("pattern")):
        return lambda piece: piece.replace(space, " ").encode()
    return None


def _parts(decoder: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    if decoder is None:
        return
    if decoder["type"] == "Sequence":
        for part in decoder["decoders"]:
            yield from _parts(part)
    else:
        yield decoder


def _fallback(piece: str, space: str) -> bytes:
    """`<0x0A>` is a byte."""
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace(space, " ").encode()


def _of_byte_level(piece: str) -> bytes:
    try:
        return bytes([_BYTES[character] for character in piece])
    except KeyError:  # as it stands
        return piece.encode()


def _byte_level() -> dict[str, int]:
    """GPT-2's table: bytes that print stand for themselves, the others for the characters from U+0100 on."""
    printed = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)}
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(0x100 + index): byte for index, byte in enumerate(others)}


_BYTES = _byte_level()
