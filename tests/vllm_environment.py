"""The Python that has vLLM, for the tests of it: `scripts/test` makes it; `DOCKYARD_VLLM_PYTHON` names another."""

import os
from pathlib import Path

import pytest

from dockyard.engine_environments import EngineEnvironments

ENGINES = Path(__file__).parents[1] / ".cache" / "engines"
_NAMED = os.environ.get("DOCKYARD_VLLM_PYTHON")
ENVIRONMENTS = EngineEnvironments(ENGINES, {"vllm": Path(_NAMED)} if _NAMED else {})
PYTHON = Path(_NAMED or ENGINES / "vllm" / "bin" / "python")

needs_vllm = pytest.mark.skipif(
    ENVIRONMENTS.version_of("vllm") is None,
    reason="VLLM IS NOT HERE, so nothing of it is tested: `scripts/test` could not install it",
)
