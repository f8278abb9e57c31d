"""A tiny random model of every architecture that the matrix gives to vLLM, and what Transformers continues with.

    python -m tests.integration.vllm_models FOLDER

Leaves in the folder: `<architecture>`, and `seen.json`: architecture → the greedy ids after each prompt. vLLM's kernels
for a CPU want heads of 32 numbers at the least, so these are wider than the models of `matrix_models`.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.integration.matrix_configs import CONFIGS
from tests.integration.matrix_models import ROOT, make, run_alone

from dockyard.domain.compatibility import ARCHITECTURES
from dockyard.domain.spec import EngineName
from dockyard.prepare.describe import describe

NAMES = [name for name, known in ARCHITECTURES.items() if EngineName.VLLM in known.engines]
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
    (root / "seen.json").write_text(json.dumps(seen))


def _as_published(file: Path) -> None:
    """The number of experts under its old name, too: newer versions of Transformers than vLLM's save it as another."""
    config = json.loads(file.read_text())
    if "num_local_experts" in config:
        config.setdefault("num_experts", config["num_local_experts"])
        file.write_text(json.dumps(config))


if __name__ == "__main__":
    main()
