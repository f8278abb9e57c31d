"""Tiny random bases, LoRA adapters on them, and both merged by hand: folders as Transformers and PEFT save them."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

_HEAD = 32  # the narrowest that vLLM computes on a CPU
_TOKENIZER = Path(__file__).parent / "models" / "gpt2-kjv"
_SIZE, _INNER, _VOCABULARY, _LAYERS, _RANK, _ALPHA = 32, 64, 2048, 2, 4, 16
TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:"


@dataclass(frozen=True)
class Family:
    """An architecture: its config, its tensors, and the modules that an adapter of it changes."""

    config: dict[str, Any]
    tensors: dict[str, tuple[int, ...]]
    targets: tuple[str, ...]
    conv1d: bool = False  # matrices are stored as (in, out)
    ones: tuple[str, ...] = field(default=())  # ends of the names of what scales, and is not random


def _llama() -> Family:
    layer = {
        "input_layernorm": (_SIZE,),
        "post_attention_layernorm": (_SIZE,),
        "self_attn.q_proj": (2 * _HEAD, _SIZE),
        "self_attn.k_proj": (_HEAD, _SIZE),
        "self_attn.v_proj": (_HEAD, _SIZE),
        "self_attn.o_proj": (_SIZE, 2 * _HEAD),
        "mlp.gate_proj": (_INNER, _SIZE),
        "mlp.up_proj": (_INNER, _SIZE),
        "mlp.down_proj": (_SIZE, _INNER),
    }
    tensors = {f"model.layers.{i}.{name}.weight": shape for i in range(_LAYERS) for name, shape in layer.items()}
    outer = {"model.embed_tokens.weight": (_VOCABULARY, _SIZE), "model.norm.weight": (_SIZE,)}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": _SIZE,
        "intermediate_size": _INNER,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": _HEAD,
        "max_position_embeddings": 64,
        "vocab_size": _VOCABULARY,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    tensors |= {**outer, "lm_head.weight": (_VOCABULARY, _SIZE)}
    return Family(config, tensors, ("q_proj", "v_proj", "down_proj"), ones=("norm.weight", "layernorm.weight"))


def _gpt2() -> Family:
    tensors: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (_VOCABULARY, _SIZE),
        "transformer.wpe.weight": (64, _SIZE),
    }
    for i in range(_LAYERS):
        for name, (rows, columns) in {
            "attn.c_attn": (_SIZE, 3 * _SIZE),
            "attn.c_proj": (_SIZE, _SIZE),
            "mlp.c_fc": (_SIZE, 4 * _SIZE),
            "mlp.c_proj": (4 * _SIZE, _SIZE),
        }.items():
            tensors |= {f"transformer.h.{i}.{name}.weight": (rows, columns)}
            tensors |= {f"transformer.h.{i}.{name}.bias": (columns,)}
        for name in ("ln_1", "ln_2"):
            tensors |= {f"transformer.h.{i}.{name}.{part}": (_SIZE,) for part in ("weight", "bias")}
    tensors |= {f"transformer.ln_f.{part}": (_SIZE,) for part in ("weight", "bias")}
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_embd": _SIZE,
        "n_layer": _LAYERS,
        "n_head": 2,
        "n_positions": 64,
        "vocab_size": _VOCABULARY,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    # attn.c_proj is square, so its shape does not tell that it is stored transposed.
    ones = ("ln_1.weight", "ln_2.weight", "ln_f.weight")
    return Family(config, tensors, ("c_attn", "c_proj"), conv1d=True, ones=ones)


FAMILIES = {"llama": _llama(), "gpt2": _gpt2()}


def write_base(folder: Path, family: str) -> Path:
    made = FAMILIES[family]
    random = np.random.default_rng(7)
    tensors = {
        name: np.ones(shape, np.float32)
        if name.endswith(made.ones)
        else random.normal(0, 0.3, shape).astype(np.float32)
        for name, shape in made.tensors.items()
    }
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**made.config, "dtype": "float32"}))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(_TOKENIZER / name, folder / name)
    return folder


def write_shards(folder: Path) -> Path:
    """Split the weights of a base into two files and their index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    places: dict[str, str] = {}
    for number, held in enumerate((names[::2], names[1::2]), 1):
        shard = f"model-{number:05}-of-00002.safetensors"
        save_file({name: weights[name] for name in held}, folder / shard, {"format": "pt"})
        places |= dict.fromkeys(held, shard)
    index = {"metadata": {"total_size": sum(tensor.nbytes for tensor in weights.values())}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def write_adapter(folder: Path, family: str, *, rank: int = _RANK, seed: int = 9, **config: Any) -> Path:
    """As PEFT saves it; `config` overrides fields of adapter_config.json."""
    made = FAMILIES[family]
    random = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}
    for module, shape in _changed(made):
        rows, columns = shape[::-1] if made.conv1d else shape
        for kind, size in (("A", (rank, columns)), ("B", (rows, rank))):
            name = f"base_model.model.{module}.lora_{kind}.weight"
            tensors[name] = random.normal(0, 0.2, size).astype(np.float32)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    told = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": f"org/tiny-{family}",
        "r": rank,
        "lora_alpha": _ALPHA,
        "target_modules": list(made.targets),
        "fan_in_fan_out": made.conv1d,
        "bias": "none",
        **config,
    }
    (folder / "adapter_config.json").write_text(json.dumps(told))
    (folder / "README.md").write_text("a tiny adapter\n")
    return folder


def write_merged(folder: Path, base: Path, adapter: Path) -> Path:
    """Base and adapter merged by the textbook: W + alpha / r · B·A, transposed for Conv1D."""
    shutil.copytree(base, folder)
    weights, lora = load_file(base / "model.safetensors"), load_file(adapter / "adapter_model.safetensors")
    save_file(merged_by_hand(weights, lora), folder / "model.safetensors", {"format": "pt"})
    return folder


def merged_by_hand(weights: Mapping[str, np.ndarray], lora: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    merged = dict(weights)
    for name, down in lora.items():
        if not name.endswith(".lora_A.weight"):
            continue
        module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        added = _ALPHA / down.shape[0] * (lora[name.replace("lora_A", "lora_B")] @ down)
        merged[f"{module}.weight"] = merged[f"{module}.weight"] + (added.T if "c_" in module else added)
    return {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in merged.items()}


def _changed(made: Family) -> list[tuple[str, tuple[int, ...]]]:
    weights = [(name.removesuffix(".weight"), shape) for name, shape in made.tensors.items() if len(shape) == 2]
    return [(module, shape) for module, shape in weights if module.rpartition(".")[2] in made.targets]
