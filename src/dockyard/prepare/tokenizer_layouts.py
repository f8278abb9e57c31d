"""Which id each piece of a SentencePiece file has, and what a family puts around a text.

As the families' tokenizers in Transformers have it; the class's name is in `tokenizer_config.json`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dockyard.errors import Failed, Reason
from dockyard.prepare.sentencepiece_model import Kind, SentencePieceModel
from dockyard.prepare.sentencepiece_tokenizer import Layout

_PEGASUS_OFFSET = 103  # ids before the first piece but two
_FAIRSEQ = ("<s>", "<pad>", "</s>", "<unk>")  # its first four ids; SentencePiece's file has three others there
_T5_SENTINELS = 100


def plain_layout(model: SentencePieceModel, config: Mapping[str, Any]) -> Layout:
    """Llama, Mistral, Gemma: a piece's id is its place; the text begins with the token that begins."""
    names = [piece.text for piece in model.pieces]
    control = [piece.text for piece in model.pieces if piece.kind in (Kind.CONTROL, Kind.UNKNOWN)]
    begin, end = token(config, "bos_token", "<s>"), token(config, "eos_token", "</s>")
    head = [begin] if config.get("add_bos_token", True) and begin in names else []
    tail = [end] if config.get("add_eos_token", False) and end in names else []
    return Layout(names=names, places=_same(model), special=control, template=[*head, "$A", *tail])


def t5_layout(model: SentencePieceModel, config: Mapping[str, Any]) -> Layout:
    """T5 and its kin: the sentinels come after the pieces, the last one first."""
    count = config.get("extra_ids", _T5_SENTINELS)
    count = count if type(count) is int and 0 <= count <= 1000 else _T5_SENTINELS
    held = {piece.text for piece in model.pieces}
    sentinels = [name for index in reversed(range(count)) if (name := f"<extra_id_{index}>") not in held]
    names = [*(piece.text for piece in model.pieces), *sentinels]
    control = [piece.text for piece in model.pieces if piece.kind in (Kind.CONTROL, Kind.UNKNOWN)]
    end = token(config, "eos_token", "</s>")
    return Layout(names=names, places=_same(model), special=[*control, *sentinels], template=["$A", end])


def pegasus_layout(model: SentencePieceModel, config: Mapping[str, Any]) -> Layout:
    offset = config.get("offset", _PEGASUS_OFFSET)
    if type(offset) is not int or not 4 <= offset <= 1000:
        raise _contradiction("its offset is no number that Pegasus could have")
    pad, end = token(config, "pad_token", "<pad>"), token(config, "eos_token", "</s>")
    first = [pad, end, token(config, "mask_token_sent", "<mask_1>"), token(config, "mask_token", "<mask_2>")]
    unused = [f"<unk_{index}>" for index in range(2, offset)]
    names = [*first, *unused, *(piece.text for piece in model.pieces[2:])]
    places = {place: place + offset for place in range(2, len(model.pieces))}
    unknown = model.pieces[model.unknown_id].text
    return Layout(names=names, places=places, special=[*first, unknown], template=["$A", end])


def fairseq_layout(model: SentencePieceModel, languages: Sequence[str], *, source: str, source_last: bool) -> Layout:
    """mBART and NLLB: every piece one id later, then the languages. The text carries that which it is written in."""
    names = [*_FAIRSEQ, *(piece.text for piece in model.pieces[3:]), *languages, "<mask>"]
    places = {place: place + 1 for place in range(3, len(model.pieces))} | {model.unknown_id: 3}
    if source not in languages:
        raise _contradiction(f"src_lang {source[:50]!r} is not among its languages")
    template = ["$A", "</s>", source] if source_last else [source, "$A", "</s>"]
    return Layout(names=names, places=places, special=[*_FAIRSEQ, *languages, "<mask>"], template=template)


def listed_layout(
    model: SentencePieceModel, ids: Mapping[str, int], special: Sequence[str], template: Sequence[str]
) -> Layout:
    """Marian and M2M100: `vocab.json` tells the ids, of pieces that may come from another file, too."""
    names = [name for name, _ in sorted(ids.items(), key=lambda item: item[1])]
    if sorted(ids.values()) != list(range(len(ids))):
        raise _contradiction("the ids of vocab.json have holes")
    lost = [
        piece.text for piece in model.pieces if piece.kind in (Kind.NORMAL, Kind.USER_DEFINED) and piece.text not in ids
    ]
    if lost:
        raise _contradiction(f"vocab.json lacks {len(lost)} of its pieces, such as {lost[0][:50]!r}")
    places = {place: ids[piece.text] for place, piece in enumerate(model.pieces) if piece.text in ids}
    if model.unknown_id not in places:
        raise _contradiction("vocab.json lacks the piece for what is unknown")
    return Layout(names=names, places=places, special=[name for name in special if name in ids], template=template)


def token(config: Mapping[str, Any], name: str, default: str) -> str:
    """A special token's text as tokenizer_config.json has it, as a string or as an object with its content."""
    value = config.get(name)
    value = value.get("content") if isinstance(value, Mapping) else value
    return value if isinstance(value, str) and value else default


def _same(model: SentencePieceModel) -> dict[int, int]:
    return {place: place for place in range(len(model.pieces))}


def _contradiction(why: str) -> Failed:
    return Failed(
        f"the tokenizer's files contradict each other: {why}; fetch them again, or save it as tokenizer.json",
        reason=Reason.TOKENIZER_UNREADABLE,
    )
