"""The model card: memory numbers of every architecture that an engine knows, and the facts beside them."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.prepare.model_folders import LLAMA, safetensors_bytes, write_json

from dockyard.domain.card import Family
from dockyard.domain.compatibility import ARCHITECTURES
from dockyard.errors import Failed, Reason
from dockyard.prepare.describe import describe
from dockyard.prepare.folder import ECHO
from dockyard.prepare.shape import Shape, shape_of

STANDARD = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 100}
GPT2 = {"n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 100}

# Bytes per token: 2 tensors × 2 bytes × 3 layers × heads of keys and values × width of a head.
FULL, HALF, ONE = 2 * 2 * 3 * 4 * 16, 2 * 2 * 3 * 2 * 16, 2 * 2 * 3 * 1 * 16

GROUPED = {**STANDARD, "num_key_value_heads": 2, "max_position_embeddings": 128}
LIKE_LLAMA = (
    "Arcee", "Cohere", "Cohere2", "Exaone4", "Granite", "GraniteMoe", "Llama", "Mistral", "Mixtral", "Olmo", "Olmo2",
    "Olmo3", "Olmoe", "Phi3", "Qwen2", "Qwen2Moe", "SmolLM3", "StableLm", "Starcoder2",
)  # fmt: skip
WIDE_HEADS = ("Gemma2", "Gemma3", "Glm", "Glm4", "Qwen3", "Qwen3Moe")
BART = {"d_model": 64, "decoder_layers": 3, "encoder_layers": 9, "decoder_attention_heads": 4, "vocab_size": 100}
T5 = {"d_model": 64, "num_layers": 9, "num_decoder_layers": 3, "num_heads": 4, "d_kv": 16, "vocab_size": 100}
LIKE_BART = (
    "BartForConditionalGeneration", "M2M100ForConditionalGeneration", "MBartForConditionalGeneration", "MarianMTModel",
    "PegasusForConditionalGeneration",
)  # fmt: skip

SHAPES: dict[str, tuple[dict[str, Any], int | None, int]] = {
    "GPT2LMHeadModel": ({**GPT2, "n_positions": 128, "n_ctx": 128}, 128, FULL),
    "OPTForCausalLM": ({**STANDARD, "max_position_embeddings": 128}, 128, FULL),
    "BloomForCausalLM": ({"hidden_size": 64, "n_layer": 3, "n_head": 4, "vocab_size": 100}, None, FULL),
    "GemmaForCausalLM": (
        {**STANDARD, "num_key_value_heads": 1, "head_dim": 32, "max_position_embeddings": 128}, 128, 2 * ONE),
    "PhiForCausalLM": ({**STANDARD, "num_key_value_heads": None, "max_position_embeddings": 128}, 128, FULL),
    "GPTJForCausalLM": ({**GPT2, "n_positions": 128}, 128, FULL),
    "GPTNeoForCausalLM": (
        {"hidden_size": 64, "num_layers": 3, "num_heads": 4, "vocab_size": 100, "max_position_embeddings": 128},
        128, FULL),
    "GPTNeoXForCausalLM": ({**STANDARD, "max_position_embeddings": 128}, 128, FULL),
    "FalconForCausalLM": ({**STANDARD, "multi_query": True, "num_kv_heads": 4}, 2048, ONE),
    "CodeGenForCausalLM": ({**GPT2, "n_positions": 128, "n_ctx": 128}, 128, FULL),
    "GPTBigCodeForCausalLM": ({**GPT2, "n_positions": 128, "multi_query": True}, 128, ONE),
    "MptForCausalLM": ({"d_model": 64, "n_layers": 3, "n_heads": 4, "max_seq_len": 128, "vocab_size": 100}, 128, FULL),
    **{f"{name}ForCausalLM": (GROUPED, 128, HALF) for name in LIKE_LLAMA},
    **{f"{name}ForCausalLM": ({**GROUPED, "head_dim": 32}, 128, 2 * HALF) for name in WIDE_HEADS},
    **{name: ({**BART, "max_position_embeddings": 128}, 128, FULL) for name in LIKE_BART},
    **{f"{name}ForConditionalGeneration": (T5, None, FULL) for name in ("T5", "MT5", "UMT5")},
}  # fmt: skip


def test_every_known_architecture_has_its_case() -> None:
    assert SHAPES.keys() == ARCHITECTURES.keys() - {ECHO}


@pytest.mark.parametrize("name", SHAPES)
def test_shape(name: str) -> None:
    config, context, kv_bytes = SHAPES[name]
    cross = kv_bytes if ARCHITECTURES[name].family is Family.ENCODER_DECODER else 0
    assert shape_of(config, ARCHITECTURES[name]) == Shape(
        layers=3, context_length=context, vocab_size=100, kv_bytes_per_token=kv_bytes, cross_kv_bytes_per_token=cross
    )


def test_falcon_with_groups_counts_its_groups() -> None:
    config = {**STANDARD, "multi_query": True, "new_decoder_architecture": True, "num_kv_heads": 2}
    assert shape_of(config, ARCHITECTURES["FalconForCausalLM"]).kv_bytes_per_token == HALF


def test_t5_without_decoder_layers_has_as_many_as_the_encoder() -> None:
    config = {"num_layers": 3, "num_heads": 4, "d_kv": 16, "vocab_size": 100}
    assert shape_of(config, ARCHITECTURES["T5ForConditionalGeneration"]).layers == 3


@pytest.mark.parametrize(
    "bad", [{"vocab_size": None}, {"vocab_size": "7"}, {"num_hidden_layers": 0}, {"head_dim": True}]
)
def test_a_number_that_is_none_is_named(bad: dict[str, Any]) -> None:
    with pytest.raises(Failed, match=next(iter(bad))) as caught:
        shape_of({**LLAMA, **bad}, ARCHITECTURES["LlamaForCausalLM"])
    assert caught.value.reason is Reason.CONFIG_UNREADABLE


def test_card_of_a_folder(model_folder: Path) -> None:
    weights = {
        "w": ("BF16", [4, 4], bytes(32)),
        "norm": ("F32", [2], bytes(8)),
        "h.0.attn.bias": ("BOOL", [8], bytes(8)),  # a causal mask, no parameter
    }
    (model_folder / "model.safetensors").write_bytes(safetensors_bytes(weights))
    write_json(model_folder / "generation_config.json", {"eos_token_id": [2, 5], "temperature": 0.7, "seed": 1})
    write_json(model_folder / "tokenizer_config.json", {"chat_template": "{{ messages }}"})
    (model_folder / "README.md").write_text("---\ntags: [x]\nlicense: apache-2.0\n---\n# Model\n")
    card = describe(model_folder)
    assert (card.architecture, card.model_type, card.family) == ("LlamaForCausalLM", "llama", Family.DECODER)
    assert (card.parameters, card.weights_bytes, card.dtype) == (18, 40, "bfloat16")
    assert (card.context_length, card.vocab_size, card.layers, card.kv_bytes_per_token) == (64, 16, 2, 32)
    assert card.chat_template
    assert card.licence == "apache-2.0"
    assert card.eos_token_ids == (2, 5)
    assert card.generation_defaults == {"temperature": 0.7}


def test_no_weight_is_read_for_a_card(model_folder: Path) -> None:
    """A terabyte of weights, of which only the header lies on the disk: who reads them is not done today."""
    size = 1 << 40
    header = {"w": {"dtype": "BF16", "shape": [1 << 19, 1 << 20], "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    with (model_folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + size)
    card = describe(model_folder)
    assert (card.parameters, card.weights_bytes) == (size // 2, size)


def test_eos_falls_back_to_the_config_then_to_the_tokenizer(model_folder: Path) -> None:
    assert describe(model_folder).eos_token_ids == (2,)
    write_json(model_folder / "config.json", {**LLAMA, "eos_token_id": None})
    assert describe(model_folder).eos_token_ids == ()
    write_json(model_folder / "tokenizer_config.json", {"eos_token": {"content": "</s>"}})
    assert describe(model_folder).eos_token_ids == (2,)


def test_a_licence_file_names_the_licence_when_the_readme_does_not(model_folder: Path) -> None:
    assert describe(model_folder).licence is None
    (model_folder / "README.md").write_text("license: mit, says the text, which is no front matter")
    (model_folder / "LICENSE.txt").write_text("…")
    assert describe(model_folder).licence == "LICENSE.txt"


def test_a_chat_template_may_be_a_file(model_folder: Path) -> None:
    assert not describe(model_folder).chat_template
    (model_folder / "chat_template.jinja").write_text("{{ messages }}")
    assert describe(model_folder).chat_template


def test_echo_has_no_weights(model_folder: Path) -> None:
    (model_folder / "model.safetensors").unlink()
    (model_folder / "tokenizer.json").unlink()
    write_json(model_folder / "config.json", {"architectures": [ECHO], "max_position_embeddings": 512})
    card = describe(model_folder)
    assert (card.parameters, card.dtype, card.context_length, card.tokenizer) == (0, "none", 512, "")
