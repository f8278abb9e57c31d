"""Tokenizers made in memory: byte-level BPE as GPT-2's, SentencePiece with byte fallback as Llama's."""

from pathlib import Path

import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from dockyard.worker.tokenizer import FileTokenizer

EOS = "</s>"


@pytest.fixture(scope="session")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> FileTokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*alphabet, "Ġt", "Ġth", "he", "ä¸"])}
    model = models.BPE(vocab=vocab, merges=[("Ġ", "t"), ("Ġt", "h"), ("h", "e"), ("ä", "¸")])
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _saved(tokenizer, tmp_path_factory.mktemp("byte-level"))


@pytest.fixture(scope="session")
def sentence_piece(tmp_path_factory: pytest.TempPathFactory) -> FileTokenizer:
    pieces = ["▁", "▁the", "▁a", "a", "b", "c", "he", "h", "e", "▁h"]
    vocab = {piece: i for i, piece in enumerate(["<unk>", *(f"<0x{b:02X}>" for b in range(256)), *pieces])}
    merges = [("h", "e"), ("▁", "a"), ("▁", "h")]
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _saved(tokenizer, tmp_path_factory.mktemp("sentence-piece"))


def _saved(tokenizer: tokenizers.Tokenizer, folder: Path) -> FileTokenizer:
    """With an end-of-sequence token that encoding adds, and truncation, which the worker must take off."""
    tokenizer.add_special_tokens([AddedToken(EOS, special=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", special_tokens=[(EOS, tokenizer.token_to_id(EOS))]
    )
    tokenizer.enable_truncation(max_length=4)
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return FileTokenizer(path)
