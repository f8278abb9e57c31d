import json
from pathlib import Path
from typing import Any

import pytest
from tests.conversion import MODELS

from dockyard.engines.vocabulary import read_vocabulary
from dockyard.worker.tokenizer import FileTokenizer


def written(folder: Path, decoder: Any, vocabulary: Any, added: Any = ()) -> Path:
    tokenizer = {"model": {"vocab": vocabulary}, "decoder": decoder, "added_tokens": list(added)}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


@pytest.mark.parametrize("text", ["And God said, Let there be light", "é 🚢 \n\t{}"])
def test_a_byte_level_text_is_the_bytes_of_its_tokens(text: str) -> None:
    ids = FileTokenizer(MODELS / "gpt2-kjv" / "tokenizer.json").encode(text, special=False)
    vocabulary = read_vocabulary(MODELS / "gpt2-kjv")
    assert b"".join(vocabulary.tokens[token] for token in ids).decode() == text
    assert vocabulary.spells


def test_sentencepiece_with_bytes_to_fall_back_on(tmp_path: Path) -> None:
    decoder = {
        "type": "Sequence",
        "decoders": [{"type": "Replace", "pattern": {"String": "▁"}}, {"type": "ByteFallback"}],
    }
    pieces = {"<unk>": 0, "<0x0A>": 1, "▁the": 2, "é": 3}
    added = [{"id": 0, "content": "<unk>", "special": True}, {"id": 5, "content": "<tool>", "special": False}]
    vocabulary = read_vocabulary(written(tmp_path, decoder, pieces, added), at_least=7)
    assert vocabulary.tokens == [b"<unk>", b"\n", b" the", "é".encode(), b"", b"<tool>", b""]
    assert vocabulary.special == {0}


def test_unigram_with_a_metaspace(tmp_path: Path) -> None:
    vocabulary = read_vocabulary(
        written(tmp_path, {"type": "Metaspace", "replacement": "▁"}, [["▁", -1.0], ["a▁", -2.0]])
    )
    assert (vocabulary.tokens, vocabulary.spells) == ([b" ", b"a "], True)


def test_wordpiece_writes_between_its_tokens(tmp_path: Path) -> None:
    assert not read_vocabulary(written(tmp_path, {"type": "WordPiece"}, {"a": 0, "##b": 1})).spells


def test_no_tokenizer_means_bytes(tmp_path: Path) -> None:
    assert read_vocabulary(tmp_path).tokens == [bytes([byte]) for byte in range(256)]
