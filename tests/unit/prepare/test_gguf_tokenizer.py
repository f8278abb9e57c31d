"""Tokenizers out of GGUF metadata, beyond the one that the import tests go through."""

from typing import Any, cast

import pytest

from dockyard.errors import Failed, Reason
from dockyard.prepare.gguf_file import GgufFile
from dockyard.prepare.gguf_tokenizer import build_tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
G = "tokenizer.ggml."


class Metadata:
    """As much of a `GgufFile` as the tokenizer needs."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def find(self, key: str) -> Any:
        return self.values.get(key)

    def number(self, key: str, default: int | None = None) -> int:
        return 128


def _build(values: dict[str, Any]) -> Any:
    gguf = cast(GgufFile, Metadata(values))
    return build_tokenizer(gguf, len(values.get(f"{G}tokens", [])))


def _sentencepiece() -> dict[str, Any]:
    """Scores as SentencePiece's byte-pair training gives them: -1, -2, … in the order of the merges."""
    merged = ["▁h", "el", "▁hel", "lo", "▁hello", "▁▁"]
    letters = ["▁", "h", "e", "l", "o"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *merged, *letters]
    return {
        f"{G}model": "llama",
        f"{G}tokens": tokens,
        f"{G}scores": [0.0] * 259 + [-float(rank) for rank in range(len(merged) + len(letters))],
        f"{G}token_type": [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * (len(merged) + len(letters)),
        f"{G}bos_token_id": 1,
        f"{G}eos_token_id": 2,
        f"{G}unknown_token_id": 0,
    }


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("hello", ["▁hello"]),
        ("hell", ["▁hel", "l"]),  # "▁h" + "el" before "lo" was learnt
        ("hello  hello", ["▁hello", "▁", "▁hello"]),
        ("hé", ["▁h", "<0xC3>", "<0xA9>"]),
        ("</s>hello", ["</s>", "▁hello"]),
    ],
)
def test_sentencepiece_merges_follow_from_the_scores(text: str, tokens: list[str]) -> None:
    tokenizer, _ = _build(_sentencepiece())
    assert tokenizer.encode(text).tokens == ["<s>", *tokens]
    assert tokenizer.decode(tokenizer.encode(text).ids) == text.replace("</s>", "")


def test_sentencepiece_without_a_space_before_and_without_a_beginning() -> None:
    tokenizer, _ = _build({**_sentencepiece(), f"{G}add_space_prefix": False, f"{G}add_bos_token": False})
    assert tokenizer.encode("lo hello").tokens == ["lo", "▁hello"]
    assert tokenizer.decode(tokenizer.encode("lo hello").ids) == "lo hello"


def _byte_level(pre: str, **fields: Any) -> dict[str, Any]:
    tokens = ["<|begin|>", "<|end|>", "<think>", "1", "2", "12", "Ġ", "a", "Ġa", "x", "123", "3"]
    return {
        f"{G}model": "gpt2",
        f"{G}pre": pre,
        f"{G}tokens": tokens,
        f"{G}token_type": [CONTROL, CONTROL, USER_DEFINED] + [NORMAL] * 9,
        f"{G}merges": ["1 2", "Ġ a"],
        f"{G}bos_token_id": 0,
        f"{G}eos_token_id": 1,
        **{f"{G}{name}": value for name, value in fields.items()},
    }


@pytest.mark.parametrize(
    ("pre", "tokens"),
    [
        ("gpt-2", ["12", "3", "12", "Ġa"]),
        ("smollm", ["1", "2", "3", "1", "2", "Ġa"]),
        ("qwen2", ["1", "2", "3", "1", "2", "Ġa"]),
        ("llama-bpe", ["<|begin|>", "123", "12", "Ġa"]),  # three digits, taken whole; and its beginning
    ],
)
def test_each_pre_tokenizer_splits_digits_its_own_way(pre: str, tokens: list[str]) -> None:
    tokenizer, _ = _build(_byte_level(pre))
    assert tokenizer.encode("12312 a").tokens == tokens


def test_the_file_decides_about_beginning_and_end() -> None:
    tokenizer, config = _build(_byte_level("gpt-2", add_bos_token=True, add_eos_token=True))
    assert tokenizer.encode("a").tokens == ["<|begin|>", "a", "<|end|>"]
    assert tokenizer.encode("a", add_special_tokens=False).tokens == ["a"]
    assert (config["bos_token"], config["eos_token"]) == ("<|begin|>", "<|end|>")
    assert _build(_byte_level("llama-bpe", add_bos_token=False))[0].encode("a").tokens == ["a"]


def test_user_defined_tokens_are_whole_and_stay_in_the_text() -> None:
    tokenizer, _ = _build(_byte_level("gpt-2"))
    ids = tokenizer.encode("<|begin|>a<think>a").ids
    assert ids == [0, 7, 2, 7]
    assert tokenizer.decode(ids) == "a<think>a"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, Reason.TOKENIZER_MISSING),
        ({**_sentencepiece(), f"{G}model": "rwkv"}, Reason.TOKENIZER_MISSING),
        (_byte_level("chameleon"), Reason.TOKENIZER_MISSING),
        ({**_sentencepiece(), f"{G}scores": [0.0]}, Reason.TOKENIZER_UNREADABLE),
        (_byte_level("gpt-2", token_type=[1]), Reason.TOKENIZER_UNREADABLE),
        (_byte_level("gpt-2", merges=["1"]), Reason.TOKENIZER_UNREADABLE),
        (_byte_level("gpt-2", merges=["y z"]), Reason.TOKENIZER_UNREADABLE),
    ],
)
def test_what_is_unknown_or_unsound_is_refused(values: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(Failed) as caught:
        _build(values)
    assert caught.value.reason is reason
