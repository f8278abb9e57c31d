"""What a card tells beside the memory numbers: the tokenizer, weights that are tied, experts, the licence."""

from pathlib import Path
from typing import Any

import pytest
from tests.unit.prepare.model_folders import LLAMA, safetensors_bytes, write_json

from dockyard.prepare.describe import describe, tokenizer_facts

TABLE = ("F32", [4, 2], bytes(32))


def with_weights(folder: Path, config: dict[str, Any], *names: str) -> int:
    """The parameters of a model whose tensors all have 4 × 2 elements."""
    write_json(folder / "config.json", {**LLAMA, **config})
    (folder / "model.safetensors").write_bytes(safetensors_bytes(dict.fromkeys(names, TABLE)))
    return describe(folder).parameters


def test_an_output_layer_that_is_the_embedding_counts_once(model_folder: Path) -> None:
    names = ("model.embed_tokens.weight", "lm_head.weight", "model.norm.weight")
    assert with_weights(model_folder, {"tie_word_embeddings": True}, *names) == 16
    assert with_weights(model_folder, {"tie_word_embeddings": False}, *names) == 24
    assert with_weights(model_folder, {}, *names) == 24  # a Llama that does not say is not tied
    assert with_weights(model_folder, {"tie_word_embeddings": True}, *names[1:]) == 16  # there once, under that name


def test_a_tied_model_need_not_say_so(model_folder: Path) -> None:
    names = ("transformer.wte.weight", "lm_head.weight")
    config = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}
    assert with_weights(model_folder, config, *names) == 8


def test_t5_has_one_embedding_for_both_sides(model_folder: Path) -> None:
    config: dict[str, Any] = {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "num_layers": 2,
        "num_heads": 4,
        "d_kv": 2,
        "d_model": 8,
        "tie_word_embeddings": False,  # as Flan-T5, whose output layer is its own
    }
    names = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    assert with_weights(model_folder, config, *names) == 16


def test_a_tensor_of_another_shape_is_no_copy(model_folder: Path) -> None:
    write_json(model_folder / "config.json", {**LLAMA, "tie_word_embeddings": True})
    tensors = {"model.embed_tokens.weight": TABLE, "lm_head.weight": ("F32", [5, 2], bytes(40))}
    (model_folder / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    assert describe(model_folder).parameters == 18


def test_of_experts_a_token_passes_some(model_folder: Path) -> None:
    experts = [f"model.layers.0.block_sparse_moe.experts.{number}.w1.weight" for number in range(8)]
    config = {"num_local_experts": 8, "num_experts_per_tok": 2}
    assert with_weights(model_folder, config, "model.norm.weight", *experts) == 8 * 9
    assert describe(model_folder).active_parameters == 8 * 3


@pytest.mark.parametrize("odd", [{}, {"num_local_experts": 8}, {"num_local_experts": 2, "num_experts_per_tok": 4}])
def test_a_dense_model_has_no_active_part(model_folder: Path, odd: dict[str, Any]) -> None:
    with_weights(model_folder, odd, "model.norm.weight")
    assert describe(model_folder).active_parameters is None


def test_the_card_tells_the_tokenizer(model_folder: Path) -> None:
    card = describe(model_folder)
    assert (card.tokenizer_kind, card.tokenizer_size) == ("WordLevel", 3)


@pytest.mark.parametrize(
    ("tokenizer", "kind", "size"),
    [
        ({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}}, "added_tokens": [{"content": "<s>"}]}, "BPE", 3),
        ({"model": {"type": "BPE", "vocab": {"<s>": 0}}, "added_tokens": [{"content": "<s>"}]}, "BPE", 1),
        ({"model": {"type": "Unigram", "vocab": [["a", -1.0], ["b", -2.0]]}}, "Unigram", 2),
        ({"model": {"vocab": [["a", -1.0]]}}, "Unigram", 1),
        ({"model": {"vocab": {"a": 0}, "merges": []}}, "BPE", 1),
        ({"model": {"type": "WordPiece"}}, "WordPiece", None),
        ({"model": {"type": 7, "vocab": {"a": 0}}, "added_tokens": [3]}, "BPE", 1),
        ({"model": []}, None, None),
        ({}, None, None),
    ],
)
def test_a_tokenizer_as_its_file_tells(tokenizer: dict[str, Any], kind: str | None, size: int | None) -> None:
    assert tokenizer_facts(tokenizer) == (kind, size)
