"""The models whose memory is measured: those of the tests, SmolLM2, and a random Llama whose weights are most of it."""

import asyncio
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from safetensors.numpy import save_file

from bench.outcome import ROOT
from bench.server import smollm2
from dockyard.domain.card import ModelCard
from dockyard.prepare.runner import ProcessPreparer
from dockyard.protocols.preparation import ConvertTask, ImportTask, PathSource, Progress

STORE = ROOT / ".cache" / "bench" / "memory"
# 117 M parameters, 469 MB: most of them in the layers, as in models that people deploy.
_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 9,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "vocab_size": 2048,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "torch_dtype": "float32",
}


@dataclass(frozen=True, slots=True)
class PreparedModel:
    name: str
    card: ModelCard
    folder: Path  # of the imported files
    key: str


class ModelShelf:
    """Imports and converts by the product's own ways; what is there already is found again."""

    def __init__(self) -> None:
        self._artifacts, self._scratch = str(STORE / "artifacts"), str(STORE / "scratch")
        self._preparer = ProcessPreparer(self._artifacts, self._scratch)

    def model(self, name: str) -> PreparedModel:
        source = PathSource(path=str(_source(name)))
        task = ImportTask(source=source, artifacts_dir=self._artifacts, scratch_dir=self._scratch)
        outcome = asyncio.run(self._preparer.run(task, _quietly))
        card = msgspec.convert(outcome.card, ModelCard)
        return PreparedModel(name, card, Path(self._preparer.artifact_dir(outcome.key)), outcome.key)

    def artifact(self, model: PreparedModel, engine: str, quantization: str) -> Path:
        """What the engine loads."""
        task = ConvertTask(
            source_key=model.key,
            engine=engine,
            quantization=quantization,
            artifacts_dir=self._artifacts,
            scratch_dir=self._scratch,
        )
        return Path(self._preparer.artifact_dir(asyncio.run(self._preparer.run(task, _quietly)).key))


def _source(name: str) -> Path:
    if name == "SmolLM2-135M":
        return smollm2()
    if name == "random Llama":
        return _random_llama(STORE / "random-llama")
    return ROOT / "tests" / "models" / name


def _random_llama(folder: Path) -> Path:
    if not (folder / "model.safetensors").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(ROOT / "tests" / "models" / "gpt2-kjv" / name, folder / name)
        (folder / "config.json").write_text(json.dumps(_LLAMA))
        chance = np.random.default_rng(0)
        shapes = _llama_shapes(1024, 2816, 9, 256, 2048)
        weights = {name: chance.standard_normal(shape, np.float32) * 0.02 for name, shape in shapes.items()}
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def _llama_shapes(width: int, inner: int, layers: int, kv_width: int, vocabulary: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, width),
        "model.norm.weight": (width,),
        "lm_head.weight": (vocabulary, width),
    }
    for number in range(layers):
        layer = f"model.layers.{number}."
        for part, rows in (("q", width), ("k", kv_width), ("v", kv_width), ("o", width)):
            shapes[f"{layer}self_attn.{part}_proj.weight"] = (rows, width)
        shapes |= {
            f"{layer}mlp.gate_proj.weight": (inner, width),
            f"{layer}mlp.up_proj.weight": (inner, width),
            f"{layer}mlp.down_proj.weight": (width, inner),
            f"{layer}input_layernorm.weight": (width,),
            f"{layer}post_attention_layernorm.weight": (width,),
        }
    return shapes


async def _quietly(_: Progress) -> None: ...
