"""A saved model as the GGUF file that llama.cpp's converter would make of it: its names, its orders, its metadata."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGUFWriter, TokenType, get_tensor_name_map
from safetensors.numpy import load_file

# Architecture → its name in GGUF. Mistral's files are Llama's.
NAMES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "GemmaForCausalLM": "gemma",
    "Phi3ForCausalLM": "phi3",
}


def write_gguf(folder: Path, path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    name = NAMES[config["architectures"][0]]
    writer = GGUFWriter(path, name)
    _metadata(writer, config)
    _vocabulary(writer, json.loads((folder / "tokenizer.json").read_text())["model"])
    arch = next(arch for arch, known in MODEL_ARCH_NAMES.items() if known == name)
    names = get_tensor_name_map(MODEL_ARCH(arch), config["num_hidden_layers"])
    for ours, values in load_file(folder / "model.safetensors").items():
        theirs = names.get_name(ours, try_suffixes=(".weight", ".bias"))
        assert theirs is not None, ours
        writer.add_tensor(theirs, _stored(name, ours, values, config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _stored(name: str, ours: str, values: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """What convert_hf_to_gguf.py does to a tensor of the architecture."""
    if name == "gemma" and ours.endswith("norm.weight"):
        return values + np.float32(1)
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(ours.split(".")[-2])
    if name == "llama" and heads:
        count = config[heads]
        halves = values.reshape(count, 2, values.shape[0] // count // 2, *values.shape[1:])
        return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))
    return values


def _metadata(writer: GGUFWriter, config: dict[str, Any]) -> None:
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    if config.get("sliding_window"):
        writer.add_sliding_window(config["sliding_window"])


def _vocabulary(writer: GGUFWriter, core: dict[str, Any]) -> None:
    tokens = sorted(core["vocab"], key=core["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token == "<|endoftext|>" else TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in core["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
