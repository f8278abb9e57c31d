"""`tokenizer.json` and `tokenizer_config.json` out of a GGUF file's metadata.

Only the pre-tokenizers whose rule is known are accepted: a wrong split gives other ids than the model was trained on,
and nothing would tell. `default` names no rule (llama.cpp's converter did not know the tokenizer), so it is refused.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from dockyard.errors import Failed, Reason
from dockyard.prepare.gguf_file import GgufFile

# llama.cpp's token types
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4

_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2_SPLIT = _LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")

_SPECIAL = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}


@dataclass(frozen=True, slots=True)
class _Rule:
    """How a byte-level tokenizer cuts text before it merges. `regex` None: GPT-2's own."""

    regex: str | None = None
    single_digits: bool = False
    nfc: bool = False
    ignore_merges: bool = False  # a word that is a token as a whole is taken whole
    add_bos: bool = False  # where the file does not say


_RULES = {
    "gpt-2": _Rule(),
    "smollm": _Rule(single_digits=True),
    "llama-bpe": _Rule(regex=_LLAMA3_SPLIT, ignore_merges=True, add_bos=True),
    "qwen2": _Rule(regex=_QWEN2_SPLIT, nfc=True),
}


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    tokens: list[str]
    types: list[int]

    @property
    def ids(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(self.tokens)}


def build_tokenizer(gguf: GgufFile, vocab_size: int) -> tuple[Tokenizer, dict[str, Any]]:
    """The tokenizer and the content of `tokenizer_config.json`. Raises `Failed` (TOKENIZER_MISSING, …_UNREADABLE)."""
    vocabulary = _vocabulary(gguf, vocab_size)
    kind = gguf.find("tokenizer.ggml.model")
    try:
        if kind == "gpt2":
            tokenizer, add_bos = _byte_level(gguf, vocabulary)
        elif kind == "llama":
            tokenizer, add_bos = _sentencepiece(gguf, vocabulary)
        else:
            raise _unsupported(f"tokenizer model {str(kind)[:50]}", "gpt2, llama")
        special = special_ids(gguf)
        _add_tokens(tokenizer, vocabulary)
        _add_ends(tokenizer, gguf, vocabulary, special, add_bos)
        json.loads(tokenizer.to_str())
    except Failed:
        raise
    except Exception as error:  # the library raises bare `Exception`
        raise _unreadable(str(error)[:200]) from error
    return tokenizer, _tokenizer_config(gguf, vocabulary, special)


def special_ids(gguf: GgufFile) -> dict[str, int]:
    """The ids of the special tokens that the file names, under the names that Transformers has for them."""
    count = len(gguf.find("tokenizer.ggml.tokens") or ())
    found = {name: gguf.find(f"tokenizer.ggml.{key}") for name, key in _SPECIAL.items()}
    return {name: value for name, value in found.items() if isinstance(value, int) and 0 <= value < count}


def _vocabulary(gguf: GgufFile, vocab_size: int) -> _Vocabulary:
    tokens = gguf.find("tokenizer.ggml.tokens")
    if not tokens:
        raise Failed(
            "the GGUF file holds no vocabulary; import the model's safetensors folder instead",
            reason=Reason.TOKENIZER_MISSING,
        )
    types = gguf.find("tokenizer.ggml.token_type") or [_NORMAL] * len(tokens)
    if not all(isinstance(token, str) for token in tokens) or len(types) != len(tokens) or len(tokens) > vocab_size:
        raise _unreadable("its vocabulary does not agree with its token types or its embeddings")
    return _Vocabulary(tokens, [int(kind) for kind in types])


def _byte_level(gguf: GgufFile, vocabulary: _Vocabulary) -> tuple[Tokenizer, bool]:
    name = gguf.find("tokenizer.ggml.pre")
    rule = _RULES.get(name)
    if rule is None:
        raise _unsupported(f"pre-tokenizer {str(name)[:50]}", ", ".join(_RULES))
    merges = [_pair(merge) for merge in gguf.find("tokenizer.ggml.merges") or ()]
    tokenizer = Tokenizer(models.BPE(vocabulary.ids, merges, ignore_merges=rule.ignore_merges))
    if rule.nfc:
        tokenizer.normalizer = normalizers.NFC()
    steps: list[Any] = []
    if rule.single_digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if rule.regex:
        steps.append(pre_tokenizers.Split(Regex(rule.regex), behavior="isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=rule.regex is None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, rule.add_bos


def _sentencepiece(gguf: GgufFile, vocabulary: _Vocabulary) -> tuple[Tokenizer, bool]:
    """Byte-pair encoding as SentencePiece does it: the merges follow from the scores, unknown characters from bytes."""
    scores = gguf.find("tokenizer.ggml.scores") or ()
    if len(scores) != len(vocabulary.tokens):
        raise _unreadable("its scores do not agree with its vocabulary")
    prefix = gguf.find("tokenizer.ggml.add_space_prefix") is not False
    unknown = vocabulary.tokens[special_ids(gguf).get("unk_token", 0)]
    model = models.BPE(
        vocabulary.ids,
        _merges_of_scores(vocabulary, scores),
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    spaces = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces] if prefix else [spaces])
    steps: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return tokenizer, True


def _merges_of_scores(vocabulary: _Vocabulary, scores: Any) -> list[tuple[str, str]]:
    """All ways to make a piece of two pieces, best score first; as Transformers derives them from SentencePiece."""
    ids = {
        token: index
        for index, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
        if kind == _NORMAL
    }
    found: list[tuple[float, int, int, int, str, str]] = []
    for piece, index in ids.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in ids and right in ids:
                found.append((-float(scores[index]), index, ids[left], ids[right], left, right))
    return [(left, right) for *_, left, right in sorted(found)]


def _pair(merge: str) -> tuple[str, str]:
    left, right = merge.split(" ")
    return left, right


def _add_tokens(tokenizer: Tokenizer, vocabulary: _Vocabulary) -> None:
    """Control tokens are matched whole and left out of decoded text; user-defined ones are matched whole only."""
    kinds = list(zip(vocabulary.tokens, vocabulary.types, strict=True))
    control = [token for token, kind in kinds if kind in (_CONTROL, _UNKNOWN)]
    defined = [token for token, kind in kinds if kind == _USER_DEFINED]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in defined])


def _add_ends(
    tokenizer: Tokenizer, gguf: GgufFile, vocabulary: _Vocabulary, special: Mapping[str, int], add_bos: bool
) -> None:
    """What every prompt begins and ends with, as the file says."""
    wanted = gguf.find("tokenizer.ggml.add_bos_token")
    before = "bos_token" if (add_bos if wanted is None else wanted) and "bos_token" in special else None
    after = "eos_token" if gguf.find("tokenizer.ggml.add_eos_token") and "eos_token" in special else None
    used = {name: vocabulary.tokens[special[name]] for name in (before, after) if name}
    if not used:
        return
    head, tail = used.get(before or ""), used.get(after or "")
    single = [part for part in (head, "$A", tail) if part]
    pair = [*single, *(f"{part}:1" for part in (head, "$B", tail) if part)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(token, special[name]) for name, token in used.items()]
    )


def _tokenizer_config(gguf: GgufFile, vocabulary: _Vocabulary, special: Mapping[str, int]) -> dict[str, Any]:
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": gguf.number("context_length"),
        **{name: vocabulary.tokens[token_id] for name, token_id in special.items()},
    }
    template = gguf.find("tokenizer.chat_template")
    if isinstance(template, str):
        config["chat_template"] = template
    return config


def _unsupported(what: str, known: str) -> Failed:
    return Failed(
        f"the GGUF file's {what} has no exact counterpart here (known: {known}); import the model's safetensors "
        "folder, which brings its tokenizer.json",
        reason=Reason.TOKENIZER_MISSING,
    )


def _unreadable(why: str) -> Failed:
    return Failed(f"the GGUF file's tokenizer cannot be read: {why}", reason=Reason.TOKENIZER_UNREADABLE)
