"""A tokenizer that is not `tokenizer.json`: found in a model folder, converted, and checked before it is believed."""

import json
from collections.abc import Callable, Collection, Mapping
from importlib.util import find_spec
from typing import Any

from tokenizers import Tokenizer

from dockyard.errors import Failed, Reason
from dockyard.prepare.added_tokens import add_tokens
from dockyard.prepare.byte_level_files import byte_level_tokenizer
from dockyard.prepare.sentencepiece_model import SentencePieceModel, read_sentencepiece
from dockyard.prepare.sentencepiece_tokenizer import Layout, build_tokenizer
from dockyard.prepare.tokenizer_layouts import (
    fairseq_layout,
    listed_layout,
    pegasus_layout,
    plain_layout,
    t5_layout,
    token,
)

Read = Callable[[str], bytes]

# What may stand for tokenizer.json; the first set of files that is there counts.
SOURCES = (
    ("source.spm", "vocab.json"),
    ("sentencepiece.bpe.model",),
    ("spiece.model",),
    ("tokenizer.model",),
    ("vocab.json", "merges.txt"),
)
_PLAIN = ("gemma", "gemma2", "gemma3_text", "llama", "mistral", "mixtral", "phi3")
_SAMPLES = (
    "Hello world", " leading", "two  spaces, trailing ", "Grüße aus München – ça va?", "你好 世界 3.14159",
    "line\nbreak\ttab", "deploy 12,345 tokens/s!", "emoji 😀 ok",
)  # fmt: skip


def find_source(names: Collection[str]) -> tuple[str, ...] | None:
    """The files of `names` that a tokenizer can be made of; None where there are none."""
    return next((files for files in SOURCES if all(name in names for name in files)), None)


def convert_tokenizer(
    files: tuple[str, ...],
    read: Read,
    config: Mapping[str, Any],
    settings: Mapping[str, Any],
    added: Mapping[str, Any] | None = None,
) -> bytes:
    """`tokenizer.json` of `files`, read with `read`. `config` is config.json, `settings` tokenizer_config.json,
    `added` added_tokens.json.

    Raises `Failed` (TOKENIZER_UNREADABLE, TOKENIZER_MISSING).
    """
    try:
        tokenizer = _converted(files, read, config, settings)
        add_tokens(tokenizer, added or {}, settings)
        content = tokenizer.to_str().encode()
        Tokenizer.from_buffer(content)
    except Failed:
        raise
    except Exception as error:  # the library raises bare `Exception`
        raise _unreadable(files, str(error)[:200]) from error
    rows = config.get("vocab_size")
    if type(rows) is int and tokenizer.get_vocab_size() > rows:
        raise _unreadable(files, f"it has {tokenizer.get_vocab_size()} tokens and the model {rows}")
    return content


def _converted(files: tuple[str, ...], read: Read, config: Mapping[str, Any], settings: Mapping[str, Any]) -> Tokenizer:
    if files == ("vocab.json", "merges.txt"):
        return byte_level_tokenizer(_table(read, "vocab.json"), read("merges.txt"), config, settings)
    content = read(files[0])
    model = read_sentencepiece(content, files[0])
    layout = _layout(files, model, read, config, settings)
    tokenizer = build_tokenizer(model, layout)
    _check(tokenizer, content, model, layout, files)
    return tokenizer


def _layout(
    files: tuple[str, ...],
    model: SentencePieceModel,
    read: Read,
    config: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Layout:
    kind = config.get("model_type")
    if kind == "marian" and "vocab.json" in files:
        ids = _table(read, "vocab.json")
        languages = [name for name in ids if name.startswith(">>") and name.endswith("<<")]
        end = token(settings, "eos_token", "</s>")
        return listed_layout(model, ids, [end, "<pad>", "<unk>", *languages], ["$A", end])
    if kind in ("t5", "mt5", "umt5"):
        return t5_layout(model, settings)
    if kind == "pegasus":
        return pegasus_layout(model, settings)
    if kind in ("mbart", "m2m_100") and files == ("sentencepiece.bpe.model",):
        return _translation_layout(model, str(kind), read, settings)
    if kind in _PLAIN:
        return plain_layout(model, settings)
    raise Failed(
        f"{files[0]} is a SentencePiece file, and how {str(kind)[:50]} uses one is not known here; load the tokenizer "
        "with AutoTokenizer and save_pretrained it into the folder, which writes a tokenizer.json",
        reason=Reason.TOKENIZER_MISSING,
    )


def _translation_layout(model: SentencePieceModel, kind: str, read: Read, settings: Mapping[str, Any]) -> Layout:
    languages = settings.get("additional_special_tokens") or settings.get("extra_special_tokens") or ()
    names = [name for name in (token({"": value}, "", "") for value in languages) if name]
    source = token(settings, "src_lang", "")
    if settings.get("tokenizer_class") == "M2M100Tokenizer" and source:
        ids = _table(read, "vocab.json")
        ids = ids | {name: len(ids) + index for index, name in enumerate(names) if name not in ids}
        source = f"__{source.strip('_')}__"
        if source in ids:
            return listed_layout(model, ids, ["<s>", "<pad>", "</s>", "<unk>", *names], [source, "$A", "</s>"])
    if not names or not source:
        raise Failed(
            "tokenizer_config.json names no src_lang, or no languages as additional_special_tokens; load the tokenizer "
            "with AutoTokenizer, src_lang set, and save_pretrained it into the folder, which writes a tokenizer.json",
            reason=Reason.TOKENIZER_MISSING,
        )
    first_version = kind == "mbart" and settings.get("tokenizer_class") in ("MBartTokenizer", "MBartTokenizerFast")
    return fairseq_layout(model, names, source=source, source_last=first_version)


def _check(
    tokenizer: Tokenizer, content: bytes, model: SentencePieceModel, layout: Layout, files: tuple[str, ...]
) -> None:
    """Where SentencePiece itself is installed, both must cut some texts alike."""
    if find_spec("sentencepiece") is None:
        return
    from sentencepiece import SentencePieceProcessor

    unknown = layout.places[model.unknown_id]
    original = SentencePieceProcessor(model_proto=content)
    for text in _SAMPLES:
        wanted = [layout.places.get(place, unknown) for place in original.encode(text)]
        if tokenizer.encode(text, add_special_tokens=False).ids != wanted:
            raise _unreadable(files, f"it cuts {text!r} into other pieces once converted")


def _table(read: Read, name: str) -> dict[str, int]:
    table = json.loads(read(name))
    if not isinstance(table, dict) or not all(type(value) is int for value in table.values()):
        raise ValueError(f"{name} is no table of ids")
    return table


def _unreadable(files: tuple[str, ...], why: str) -> Failed:
    return Failed(
        f"the tokenizer in {' and '.join(files)} cannot be converted: {why}; load it with AutoTokenizer and "
        "save_pretrained it into the folder, which writes a tokenizer.json",
        reason=Reason.TOKENIZER_UNREADABLE,
    )
