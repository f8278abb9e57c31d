"""From SentencePiece's pieces to `tokenizer.json`: the same cuts, under the ids that the model was trained with.

A piece's id is its place in the file only for some families (`Layout`). What a text may never be cut into has a mark
before its name, which no text has and which is taken away when ids become text again.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors

from dockyard.prepare.sentencepiece_model import Algorithm, Kind, Piece, SentencePieceModel

_MARK = "\uf8fe"  # of the private use area: a text that has it loses it, as it would any unknown character
_SPACE = "▁"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """`names`: the name of each id. `places`: from a piece's place in the file to its id; absent: never produced.

    `special` names are matched whole in a text and left out of what is read; `template` is what surrounds a text, with
    `$A` for it.
    """

    names: Sequence[str]
    places: Mapping[int, int]
    special: Sequence[str]
    template: Sequence[str]


def build_tokenizer(model: SentencePieceModel, layout: Layout) -> Tokenizer:
    """Cuts as SentencePiece does; raises what the library raises for a model that contradicts itself."""
    pieces = {token_id: model.pieces[place] for place, token_id in layout.places.items()}
    names = [_name(name, token_id, pieces, layout) for token_id, name in enumerate(layout.names)]
    unknown = layout.places[model.unknown_id]
    if model.algorithm is Algorithm.UNIGRAM:
        core: Any = models.Unigram(_scored(names, pieces), unk_id=unknown, byte_fallback=model.byte_fallback)
    else:
        ids = {name: token_id for token_id, name in enumerate(names)}
        core = models.BPE(
            ids,
            list(_merges(ids, pieces)),
            unk_token=names[unknown],
            fuse_unk=True,
            byte_fallback=model.byte_fallback,
        )
    tokenizer = Tokenizer(core)
    tokenizer.normalizer = _normalizer(model)
    tokenizer.decoder = _decoder(model)
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in layout.special])
    tokenizer.add_tokens(_own_tokens(model, pieces))
    used = [name for name in layout.template if name != "$A"]
    if used:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=list(layout.template),
            pair=[*layout.template, *(f"{'$B' if part == '$A' else part}:1" for part in layout.template)],
            special_tokens=[(name, tokenizer.token_to_id(name)) for name in dict.fromkeys(used)],
        )
    return tokenizer


def _own_tokens(model: SentencePieceModel, pieces: Mapping[int, Piece]) -> list[AddedToken]:
    """User-defined pieces are looked for in the text once its spaces are marked; the library does the same to their
    names, which must not give them a prefix.
    """
    own = [piece.text for piece in pieces.values() if piece.kind is Kind.USER_DEFINED]
    if model.dummy_prefix and any(_SPACE in text for text in own):
        raise ValueError("it has user-defined pieces with spaces, beside a prefix that every text gets")
    return [AddedToken(text, normalized=not model.dummy_prefix, special=False) for text in own]


def _name(name: str, token_id: int, pieces: Mapping[int, Piece], layout: Layout) -> str:
    piece = pieces.get(token_id)
    produced = piece is not None and piece.kind is not Kind.UNUSED
    return name if produced or name in layout.special else _MARK + name


def _scored(names: Sequence[str], pieces: Mapping[int, Piece]) -> list[tuple[str, float]]:
    """What is never produced gets a score that leaves the lowest one, from which that of the unknown follows."""
    return [(name, pieces[index].score if index in pieces else 0.0) for index, name in enumerate(names)]


def _merges(ids: Mapping[str, int], pieces: Mapping[int, Piece]) -> Iterator[tuple[str, str]]:
    """All ways to make a piece of two pieces, the best score first and among equals the first in the file."""
    mergeable = {piece.text for piece in pieces.values() if piece.kind is Kind.NORMAL}
    found: list[tuple[float, int, int, int, str, str]] = []
    for token_id, piece in pieces.items():
        if piece.kind is not Kind.NORMAL or not math.isfinite(piece.score):
            continue
        for cut in range(1, len(piece.text)):
            left, right = piece.text[:cut], piece.text[cut:]
            if left in mergeable and right in mergeable:
                found.append((-piece.score, token_id, ids[left], ids[right], left, right))
    for *_, left, right in sorted(found):
        yield left, right


def _normalizer(model: SentencePieceModel) -> Any:
    steps: list[Any] = [normalizers.Replace(_MARK, "")]
    if model.charsmap:
        steps.append(normalizers.Precompiled(model.charsmap))
    if model.remove_extra_spaces:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if model.dummy_prefix:
        steps.append(normalizers.Prepend(_SPACE))
    steps.append(normalizers.Replace(" ", _SPACE))
    return normalizers.Sequence(steps)


def _decoder(model: SentencePieceModel) -> Any:
    steps: list[Any] = [decoders.Replace(_MARK, ""), decoders.Replace(_SPACE, " ")]
    if model.byte_fallback:
        steps.append(decoders.ByteFallback())
    steps.append(decoders.Fuse())
    if model.dummy_prefix:
        steps.append(decoders.Strip(" ", 1, 0))
    return decoders.Sequence(steps)
