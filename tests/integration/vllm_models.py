"""A tiny random model of every architecture that the matrix gives to vLLM, and what Transformers continues with.

    python -m tests.integration.vllm_models FOLDER

Leaves in the folder: `<architecture>`, `<architecture>+adapter` for those whose adapters vLLM adds, and `seen.json`:
name → the greedy ids after each prompt. vLLM's kernels for a CPU want heads of 32 numbers at the least, so these are
wider than the models of `matrix_models`.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from tests.integration.matrix_configs import CONFIGS
from tests.integration.matrix_models import ROOT, make, run_alone

from dockyard.domain.compatibility import ARCHITECTURES, VLLM_ADAPTERS
from dockyard.domain.spec import EngineName
from dockyard.prepare.describe import describe

NAMES = [name for name, known in ARCHITECTURES.items() if EngineName.VLLM in known.engines]
ADAPTED = [f"{name}+adapter" for name in sorted(VLLM_ADAPTERS)]
_WIDER = 4  # times; a head of 8 becomes one of 32
_WIDTHS = (
    *("hidden_size", "n_embd", "d_model", "intermediate_size", "ffn_dim", "word_embed_proj_dim", "head_dim"),
    *("moe_intermediate_size", "shared_expert_intermediate_size", "rotary_dim"),
)


def widened(name: str) -> dict[str, Any]:
    """The config of `matrix_configs`, but for two things that vLLM takes for granted, as all checkpoints have them so:
    Cohere's have no `rms_norm_eps`, by which it tells kinds of norms; OLMoE's is 1e-5.
    """
    config = {key: value * _WIDER if key in _WIDTHS else value for key, value in CONFIGS[name].items()}
    if name.startswith("Cohere"):
        del config["rms_norm_eps"]
    if name.startswith("Olmoe"):
        config["rms_norm_eps"] = 1e-5
    return config


def make_for_vllm(folder: Path) -> None:
    """All of this, in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", __name__, str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)


def main() -> None:
    root = Path(sys.argv[1])
    seen: dict[str, Any] = {}
    for name in NAMES:
        make(name, widened(name), root / name)
        seen[name] = run_alone(root / name, describe(root / name))["alone"]
        _as_published(root / name / "config.json")
    for name in ADAPTED:
        seen[name] = _adapted(root / name.removesuffix("+adapter"), root / name)
    (root / "seen.json").write_text(json.dumps(seen))


def _adapted(base: Path, folder: Path) -> Any:
    """Make the base with a LoRA adapter of all its layers' matrices beside it, as PEFT saves one; returns what
    Transformers continues with once they are merged.
    """
    shutil.copytree(base, folder)
    weights, chance = load_file(base / "model.safetensors"), np.random.default_rng(3)
    lora: dict[str, np.ndarray] = {}
    for name, weight in list(weights.items()):
        module = name.removesuffix(".weight")
        if ".layers." in name and weight.ndim == 2:
            down, up = (
                chance.normal(0, 0.1, size).astype(np.float32) for size in ((8, weight.shape[1]), (len(weight), 8))
            )
            lora |= {f"base_model.model.{module}.lora_{kind}.weight": part for kind, part in (("A", down), ("B", up))}
            weights[name] = (weight + 2 * (up @ down)).astype(np.float32)
    (folder / "adapter").mkdir()
    save_file(lora, folder / "adapter" / "adapter_model.safetensors", {"format": "pt"})
    targets = sorted({name.partition(".lora_")[0].rpartition(".")[2] for name in lora})
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": targets, "bias": "none"}
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    with tempfile.TemporaryDirectory() as scratch:
        merged = Path(shutil.copytree(base, Path(scratch, "merged")))
        save_file(weights, merged / "model.safetensors", {"format": "pt"})
        return run_alone(merged, describe(merged))["alone"]


def _as_published(file: Path) -> None:
    """The number of experts under its old name, too: newer versions of Transformers than vLLM's save it as another."""
    config = json.loads(file.read_text())
    if "num_local_experts" in config:
        config.setdefault("num_experts", config["num_local_experts"])
        file.write_text(json.dumps(config))


if __name__ == "__main__":
    main()
