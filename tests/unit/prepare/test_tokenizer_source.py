"""Tokenizers that are not tokenizer.json: cut as SentencePiece and GPT-2 cut, or refused with what to do."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from tests.unit.prepare.model_folders import LLAMA, write_json
from tokenizers import ByteLevelBPETokenizer, Tokenizer

from dockyard.errors import Failed, Reason
from dockyard.prepare.folder import look_at_folder
from dockyard.prepare.sentencepiece_model import Algorithm, Kind, read_sentencepiece

TEXTS = (
    "Hello world", "", " ", " leading", "  two  spaces, trailing  ", "Grüße aus München – ça va? ﬁne",
    "你好 世界 3.14159", "line\nbreak\ttab", "deploy 12,345 tokens/s!", "emoji 😀 ok", "a\uf8feb",
)  # fmt: skip
CORPUS = [line for line in Path(__file__).read_text().splitlines() if line.strip()] * 2
UNIGRAM = {"model_type": "unigram", "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
BPE = {
    "model_type": "bpe",
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
}
FAIRSEQ = {"model_type": "unigram", "unk_id": 0, "bos_id": 1, "eos_id": 2}


@pytest.fixture(scope="module")
def trained() -> Callable[..., bytes]:
    """A small SentencePiece file with these options; one training each."""
    made: dict[str, bytes] = {}

    def train(**options: Any) -> bytes:
        key = repr(sorted(options.items()))
        if key not in made:
            file = io.BytesIO()
            SentencePieceTrainer.train(  # pyright: ignore[reportAttributeAccessIssue]
                sentence_iterator=iter(CORPUS),
                model_writer=file,
                vocab_size=380,
                minloglevel=3,
                num_threads=1,
                **options,
            )
            made[key] = file.getvalue()
        return made[key]

    return train


def imported(folder: Path, config: dict[str, Any], settings: dict[str, Any], **files: bytes) -> Tokenizer:
    """The tokenizer that `folder` gets at import; its weights are those of another model, which nothing here reads."""
    (folder / "tokenizer.json").unlink(missing_ok=True)
    write_json(folder / "config.json", {**LLAMA, "vocab_size": 1000, **config})
    write_json(folder / "tokenizer_config.json", settings)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content)
    made = look_at_folder(folder).tokenizer
    assert made is not None
    return Tokenizer.from_buffer(made)


def cuts(tokenizer: Tokenizer) -> list[list[int]]:
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS[:-1]]


def originals(content: bytes, shift: Callable[[int], int] = lambda place: place) -> list[list[int]]:
    processor = SentencePieceProcessor(model_proto=content)
    return [[shift(place) for place in processor.encode(text)] for text in TEXTS[:-1]]


@pytest.mark.parametrize("options", [BPE, UNIGRAM, {**BPE, "add_dummy_prefix": False}], ids=["bpe", "unigram", "bare"])
def test_llama_cuts_as_sentencepiece_does(
    model_folder: Path, trained: Callable[..., bytes], options: dict[str, Any]
) -> None:
    content = trained(**options)
    tokenizer = imported(model_folder, {}, {"bos_token": {"content": "<s>"}}, tokenizer__model=content)
    assert cuts(tokenizer) == originals(content)
    processor = SentencePieceProcessor(model_proto=content)
    for text in TEXTS[:-1]:
        ids = tokenizer.encode(text).ids
        read = processor.decode([i for i in ids if i != tokenizer.token_to_id("<s>")])
        assert tokenizer.decode(ids) == read.replace(" ⁇ ", "")  # what is unknown is left out, as everywhere here
    if options["model_type"] == "bpe":
        assert tokenizer.encode("Hello").tokens[0] == "<s>"


def test_gemma_has_pieces_of_its_own_for_spaces(model_folder: Path, trained: Callable[..., bytes]) -> None:
    own = {"user_defined_symbols": ["▁▁", "▁▁▁", "\n\n", "<start_of_turn>"]}
    content = trained(**BPE, **own, add_dummy_prefix=False)
    config = {"model_type": "gemma", "architectures": ["GemmaForCausalLM"]}
    tokenizer = imported(model_folder, config, {}, tokenizer__model=content)
    texts = ["a  b   c    d", "a\n\nb", "<start_of_turn>user\nhello", *TEXTS[:-1]]
    original = SentencePieceProcessor(model_proto=content)
    for text in texts:
        assert tokenizer.encode(text, add_special_tokens=False).ids == original.encode(text)
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    with pytest.raises(Failed, match="user-defined pieces with spaces") as caught:
        imported(model_folder, {}, {}, tokenizer__model=trained(**BPE, **own))
    assert caught.value.reason is Reason.TOKENIZER_UNREADABLE


def test_tokens_that_a_fine_tune_added_keep_their_ids(model_folder: Path, trained: Callable[..., bytes]) -> None:
    content = trained(**BPE)
    settings = {
        "eos_token": "<|im_end|>",
        "added_tokens_decoder": {"380": {"content": "<|im_start|>", "special": True}, "0": {"content": "<unk>"}},
    }
    added = json.dumps({"<|im_end|>": 381, "<tool>": 382}).encode()
    tokenizer = imported(model_folder, {}, settings, tokenizer__model=content, added_tokens__json=added)
    ids = tokenizer.encode("<|im_start|>user<|im_end|><tool>").ids
    assert [i for i in ids if i >= 380] == [380, 381, 382]
    assert tokenizer.decode(ids) == "user<tool>"
    with pytest.raises(Failed, match="'<tool>' has the id 400, and not all before it are there") as caught:
        imported(model_folder, {}, settings, added_tokens__json=json.dumps({"<tool>": 400}).encode())
    assert caught.value.reason is Reason.TOKENIZER_UNREADABLE


def test_t5_has_its_sentinels_after_the_pieces(model_folder: Path, trained: Callable[..., bytes]) -> None:
    content = trained(**UNIGRAM)
    config = {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}
    tokenizer = imported(model_folder, config, {"extra_ids": 3}, spiece__model=content)
    assert cuts(tokenizer) == originals(content)
    assert [tokenizer.token_to_id(f"<extra_id_{index}>") for index in (2, 1, 0)] == [380, 381, 382]
    assert tokenizer.encode("ok").tokens[-1] == "</s>"
    assert tokenizer.decode(tokenizer.encode("to <extra_id_0> be").ids).split() == ["to", "be"]


def test_pegasus_has_its_pieces_a_hundred_ids_later(model_folder: Path, trained: Callable[..., bytes]) -> None:
    content = trained(**UNIGRAM)
    config = {"model_type": "pegasus", "architectures": ["PegasusForConditionalGeneration"]}
    tokenizer = imported(model_folder, config, {}, spiece__model=content)
    assert cuts(tokenizer) == originals(content, lambda place: place + 103)
    assert tokenizer.token_to_id("<mask_2>") == 3
    assert tokenizer.encode("ok").ids[-1] == 1
    assert 5 not in tokenizer.encode("<unk_3>").ids  # an id that no text has


def test_mbart_has_its_languages_at_the_end(model_folder: Path, trained: Callable[..., bytes]) -> None:
    content = trained(**FAIRSEQ)
    config = {"model_type": "mbart", "architectures": ["MBartForConditionalGeneration"]}
    settings = {
        "tokenizer_class": "MBart50Tokenizer",
        "src_lang": "ro_RO",
        "additional_special_tokens": ["en_XX", {"content": "ro_RO"}],
    }
    tokenizer = imported(model_folder, config, settings, sentencepiece__bpe__model=content)
    assert cuts(tokenizer) == originals(content, lambda place: place + 1 if place else 3)
    assert tokenizer.encode("ok").tokens[0::3][0] == "ro_RO"
    assert tokenizer.token_to_id("en_XX") == 381
    first = imported(model_folder, config, {**settings, "tokenizer_class": "MBartTokenizer"})
    assert first.encode("ok").tokens[-2:] == ["</s>", "ro_RO"]


def test_marian_takes_its_ids_from_the_list(model_folder: Path, trained: Callable[..., bytes]) -> None:
    content = trained(**FAIRSEQ)
    pieces = [piece.text for piece in read_sentencepiece(content, "source.spm").pieces]
    listed = ["</s>", "<unk>", ">>fra<<", "zürück", *sorted({*pieces} - {"<s>", "</s>", "<unk>"}), "<pad>"]
    ids = {name: index for index, name in enumerate(listed)}
    config = {"model_type": "marian", "architectures": ["MarianMTModel"], **BART}
    files = {"source__spm": content, "target__spm": content, "vocab__json": json.dumps(ids).encode()}
    tokenizer = imported(model_folder, config, {}, **files)
    assert cuts(tokenizer) == originals(content, lambda place: ids[pieces[place]])
    assert tokenizer.encode(">>fra<< ok").ids[0] == 2
    assert tokenizer.decode([3]) == "zürück"  # a piece of the other language
    assert 3 not in tokenizer.encode("zürück").ids
    assert tokenizer.encode("ok").ids[-1] == 0
    short = {name: index for index, name in enumerate(name for name in listed if name != pieces[10])}
    with pytest.raises(Failed, match=r"vocab\.json lacks 1 of its pieces") as caught:
        imported(model_folder, config, {}, **{**files, "vocab__json": json.dumps(short).encode()})
    assert caught.value.reason is Reason.TOKENIZER_UNREADABLE


BART = {"d_model": 8, "decoder_layers": 1, "max_position_embeddings": 64}


def test_opt_cuts_as_gpt2_does_and_begins_with_its_token(model_folder: Path) -> None:
    original = ByteLevelBPETokenizer()
    original.train_from_iterator(CORPUS, vocab_size=400, special_tokens=["<pad>", "</s>"], show_progress=False)
    saved = json.loads(original.to_str())["model"]
    merges = "#version: 0.2\n" + "\n".join(" ".join(pair) for pair in saved["merges"]) + "\n"
    files = {"vocab__json": json.dumps(saved["vocab"]).encode(), "merges__txt": merges.encode()}
    config = {"model_type": "opt", "architectures": ["OPTForCausalLM"]}
    tokenizer = imported(model_folder, config, {}, **files)
    assert cuts(tokenizer) == [original.encode(text).ids for text in TEXTS[:-1]]
    assert tokenizer.encode("ok").tokens[0] == "</s>"
    assert [tokenizer.decode(tokenizer.encode(text).ids) for text in TEXTS] == list(TEXTS)
    with pytest.raises(Failed, match=r"do not say how qwen9 cuts a text.*AutoTokenizer") as caught:
        imported(model_folder, {"model_type": "qwen9"}, {}, **files)
    assert caught.value.reason is Reason.TOKENIZER_MISSING


def test_a_mark_of_ours_in_a_text_is_left_out(model_folder: Path, trained: Callable[..., bytes]) -> None:
    tokenizer = imported(model_folder, {}, {}, tokenizer__model=trained(**BPE))
    assert tokenizer.encode(TEXTS[-1]).ids == tokenizer.encode("ab").ids


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no pieces"),
        (b"\x00\x01", "no pieces"),
        (b"\x0a\xff\xff\xff\xff\x7f", "ends early"),
        (b"\xff" * 20, "a number without an end"),
        (b"version https://git-lfs.github.com/spec/v1", ""),
    ],
)
def test_what_is_no_sentencepiece_file_is_refused(model_folder: Path, content: bytes, why: str) -> None:
    with pytest.raises(Failed, match=rf"tokenizer\.model cannot be read.*{why}.*fetch the file again") as caught:
        imported(model_folder, {}, {}, tokenizer__model=content)
    assert caught.value.reason is Reason.TOKENIZER_UNREADABLE


def test_more_tokens_than_the_model_has_rows_is_refused(model_folder: Path, trained: Callable[..., bytes]) -> None:
    with pytest.raises(Failed, match="it has 380 tokens and the model 100") as caught:
        imported(model_folder, {"vocab_size": 100}, {}, tokenizer__model=trained(**BPE))
    assert caught.value.reason is Reason.TOKENIZER_UNREADABLE


def test_a_family_whose_layout_is_not_known_is_refused(model_folder: Path, trained: Callable[..., bytes]) -> None:
    with pytest.raises(Failed, match=r"how grok uses one is not known here.*AutoTokenizer") as caught:
        imported(model_folder, {"model_type": "grok"}, {}, tokenizer__model=trained(**BPE))
    assert caught.value.reason is Reason.TOKENIZER_MISSING


def test_the_file_is_read_as_the_library_reads_it(trained: Callable[..., bytes]) -> None:
    content = trained(**BPE)
    model, processor = read_sentencepiece(content, "tokenizer.model"), SentencePieceProcessor(model_proto=content)
    assert model.algorithm is Algorithm.BPE
    assert [piece.text for piece in model.pieces] == [processor.id_to_piece(i) for i in range(len(model.pieces))]
    assert [piece.score for piece in model.pieces] == [processor.get_score(i) for i in range(len(model.pieces))]
    assert [piece.kind is Kind.BYTE for piece in model.pieces] == [
        processor.is_byte(i) for i in range(len(model.pieces))
    ]
