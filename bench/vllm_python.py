"""Where vLLM is, as Dockyard's replicas run it: `DOCKYARD_VLLM_PYTHON` names its Python, or .cache/engines holds it."""

import os
from pathlib import Path

from bench.outcome import ROOT
from bench.processes import BenchFailed
from dockyard.engine_environments import EngineEnvironments

_NAMED = os.environ.get("DOCKYARD_VLLM_PYTHON")
_ENVIRONMENTS = EngineEnvironments(ROOT / ".cache" / "engines", {"vllm": Path(_NAMED)} if _NAMED else {})


def find_vllm_python() -> Path | None:
    """None where it is not at hand."""
    return _ENVIRONMENTS.python_of("vllm")


def vllm_python() -> Path:
    """Raises `BenchFailed` where it is not at hand."""
    python = find_vllm_python()
    if python is None:
        raise BenchFailed("no environment: dockyard engines install vllm --data-dir .cache makes it")
    return python


def vllm_version() -> str:
    return _ENVIRONMENTS.version_of("vllm") or "absent"
