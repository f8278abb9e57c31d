"""A SentencePiece file (`*.model`, `*.spm`), read by the wire format of its protocol buffer. Nothing else lives here.

Field numbers are those of `sentencepiece_model.proto`.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from dockyard.errors import Failed, Reason

_MOST_PIECES = 1 << 20  # the largest known vocabulary has 0.26 million


class Kind(IntEnum):
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Algorithm(IntEnum):
    UNIGRAM = 1
    BPE = 2


@dataclass(frozen=True, slots=True)
class Piece:
    text: str
    score: float
    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class SentencePieceModel:
    """Pieces by their id, and what is done to a text before it is cut."""

    pieces: tuple[Piece, ...]
    algorithm: Algorithm
    byte_fallback: bool
    charsmap: bytes
    dummy_prefix: bool
    remove_extra_spaces: bool

    @property
    def unknown_id(self) -> int:
        return next(index for index, piece in enumerate(self.pieces) if piece.kind is Kind.UNKNOWN)


def read_sentencepiece(content: bytes, name: str) -> SentencePieceModel:
    """Raises `Failed` (TOKENIZER_UNREADABLE) for what is no such file, or of an algorithm that is not known here."""
    try:
        model = _model(content)
        sound = any(piece.kind is Kind.UNKNOWN for piece in model.pieces)
    except (ValueError, IndexError, struct.error, UnicodeDecodeError) as error:
        raise _unreadable(name, f"it is no SentencePiece file ({str(error)[:100]})") from error
    if not sound:
        raise _unreadable(name, "it has no piece for what is unknown")
    return model


def _model(content: bytes) -> SentencePieceModel:
    pieces: list[Piece] = []
    trainer: dict[int, bytes | int] = {}
    normalizer: dict[int, bytes | int] = {}
    for field, value in _fields(content):
        if field == 1 and isinstance(value, bytes):
            pieces.append(_piece(value))
            if len(pieces) > _MOST_PIECES:
                raise ValueError(f"more than {_MOST_PIECES} pieces")
        elif field == 2 and isinstance(value, bytes):
            trainer = dict(_fields(value))
        elif field == 3 and isinstance(value, bytes):
            normalizer = dict(_fields(value))
    if not pieces or trainer.get(24, 0):
        raise ValueError("no pieces" if not pieces else "spaces are suffixes")
    charsmap = normalizer.get(2, b"")
    return SentencePieceModel(
        pieces=tuple(pieces),
        algorithm=Algorithm(int(trainer.get(3, Algorithm.UNIGRAM))),
        byte_fallback=bool(trainer.get(35, 0)),
        charsmap=charsmap if isinstance(charsmap, bytes) else b"",
        dummy_prefix=bool(normalizer.get(3, 1)),
        remove_extra_spaces=bool(normalizer.get(4, 1)),
    )


def _piece(content: bytes) -> Piece:
    fields = dict(_fields(content))
    text, score = fields.get(1, b""), fields.get(2, b"\0\0\0\0")
    if not isinstance(text, bytes) or not isinstance(score, bytes):
        raise ValueError("a piece of another shape")
    return Piece(text.decode("utf-8"), struct.unpack("<f", score)[0], Kind(int(fields.get(3, Kind.NORMAL))))


def _fields(content: bytes) -> Iterator[tuple[int, bytes | int]]:
    """(number, value) of each field: an int of a varint, the bytes of anything else."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(content, at)
            yield key >> 3, value
            continue
        if wire == 2:
            length, at = _varint(content, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + length > len(content):
            raise ValueError("it ends early")
        yield key >> 3, content[at : at + length]
        at += length


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number without an end")


def _unreadable(name: str, why: str) -> Failed:
    return Failed(f"{name} cannot be read: {why}; fetch the file again", reason=Reason.TOKENIZER_UNREADABLE)
