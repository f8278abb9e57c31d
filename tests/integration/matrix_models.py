"""A tiny random model of every architecture in the matrix, described, converted and run on every engine that says yes.

    python -m tests.integration.matrix_models FOLDER

Prints one JSON object: architecture → engine → the greedy token ids, or what went wrong. In a process of its own: it
imports torch, and what the libraries warn of is theirs.
"""

import asyncio
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from dockyard.domain.compatibility import ARCHITECTURES, compute_type
from dockyard.domain.spec import EngineName, Quantization
from dockyard.engines.base import Row, Sampling
from dockyard.engines.registry import import_engine
from dockyard.prepare.ctranslate2_conversion import convert
from dockyard.prepare.describe import describe
from dockyard.prepare.folder import look_at_folder
from dockyard.prepare.reporting import Reporter
from dockyard.protocols.generation import WorkerSpec

MODELS = Path(__file__).parents[1] / "models"
VOCABULARY = 2048
_SMALL = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
_GPT = {**_SMALL, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
_LLAMA = {
    **_SMALL,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "GPT2LMHeadModel": _GPT,
    "OPTForCausalLM": {**_LLAMA, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "BloomForCausalLM": {**_SMALL, "hidden_size": 32, "n_layer": 2, "n_head": 2, "seq_length": 64},
    "LlamaForCausalLM": _LLAMA,
    "MistralForCausalLM": {**_LLAMA, "head_dim": 16},
    "Qwen2ForCausalLM": _LLAMA,
    "Qwen3ForCausalLM": {**_LLAMA, "head_dim": 16},
    "GemmaForCausalLM": {**_LLAMA, "head_dim": 16},
    "Gemma2ForCausalLM": {**_LLAMA, "head_dim": 16},
    "PhiForCausalLM": _LLAMA,
    "Phi3ForCausalLM": _LLAMA,
    "GPTJForCausalLM": {**_GPT, "rotary_dim": 8},
    "GPTNeoForCausalLM": {
        **_SMALL,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 2,
        "max_position_embeddings": 64,
        "window_size": 16,
        "attention_types": [[["global", "local"], 1]],
    },
    "GPTNeoXForCausalLM": _LLAMA,
    "FalconForCausalLM": {**_LLAMA, "new_decoder_architecture": False},
    "T5ForConditionalGeneration": {
        **_SMALL,
        "vocab_size": 46,  # that of t5-date, whose tokenizer it gets
        "d_model": 32,
        "d_kv": 16,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 2,
        "decoder_start_token_id": 0,
    },
}
PROMPT = (5, 17, 30, 2, 9)
NEW_TOKENS = 8


def make(architecture: str, folder: Path) -> None:
    """Save a random model of the architecture, with the tokenizer of a test model."""
    import torch
    import transformers

    torch.manual_seed(7)
    model_class = getattr(transformers, architecture)
    model = model_class(model_class.config_class(**CONFIGS[architecture]))
    # Default initializations are so small that every next token is as likely as any other; a copy of the embeddings'
    # scale makes the choices clear, so that two engines can agree on them.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        like = "t5-date" if architecture.startswith("T5") else "gpt2-kjv"
        shutil.copy(MODELS / like / name, folder / name)


async def run(architecture: str, engine_name: EngineName, folder: Path) -> list[int]:
    """What the engine continues the prompt with, greedily."""
    look_at_folder(folder)
    card = describe(folder)
    artifact = folder
    if engine_name is EngineName.CTRANSLATE2:
        artifact = folder.with_name(f"{folder.name}-converted")
        convert(folder, artifact, Quantization.NONE, Reporter(sys.stderr.buffer))
    engine = import_engine(engine_name)(
        WorkerSpec(
            replica_id="rp-1",
            token="t",
            engine=engine_name,
            artifact_dir=str(artifact),
            model_dir=str(folder),
            family=card.family,
            device="cpu",
            compute_type=compute_type(engine_name, Quantization.NONE, "cpu"),
            max_batch_size=2,
            context_length=card.context_length,
            threads=1,
            eos_token_ids=[],
            decoder_start_token_id=card.decoder_start_token_id,
        )
    )
    engine.load()
    try:
        generation = engine.submit(Row(PROMPT, NEW_TOKENS, Sampling(temperature=0)))
        return [token async for ids in generation for token in ids]
    finally:
        engine.close()


def main() -> None:
    seen: dict[str, dict[str, Any]] = {}
    for architecture in CONFIGS:
        folder = Path(sys.argv[1]) / architecture
        make(architecture, folder)
        for engine in ARCHITECTURES[architecture].engines:
            if engine is EngineName.VLLM:
                continue
            try:
                seen.setdefault(architecture, {})[engine] = asyncio.run(run(architecture, engine, folder))
            except Exception as error:  # noqa: BLE001 - told cell by cell
                seen.setdefault(architecture, {})[engine] = f"{type(error).__name__}: {error}"
    print(json.dumps(seen))  # noqa: T201


if __name__ == "__main__":
    main()
