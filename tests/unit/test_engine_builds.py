"""Builds for CPUs are known by their files."""

from pathlib import Path

import pytest

from dockyard.domain.spec import EngineName
from dockyard.engine_builds import torch_without_gpus, without_gpus
from dockyard.engine_environments import EngineEnvironments

CPU = "__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n"
GPU = "__version__ = '2.13.0+cu128'\ncuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n"


@pytest.mark.parametrize(("version", "can"), [(CPU, False), (GPU, True), ("cuda = '12.1'\n", True), ("", False)])
def test_torch_tells_its_cuda(tmp_path: Path, version: str, can: bool) -> None:
    (tmp_path / "version.py").write_text(version)
    why = torch_without_gpus(tmp_path, "install another")
    assert (why is None) == can
    assert why is None or why.endswith("is a build for CPUs: install another")


def test_what_is_not_there_is_no_reason(tmp_path: Path) -> None:
    """Whether it is installed at all is asked elsewhere."""
    assert torch_without_gpus(tmp_path, "") is None
    assert torch_without_gpus(None, "") is None
    assert without_gpus(EngineName.ECHO) is None


def test_vllm_is_what_its_environment_has(tmp_path: Path) -> None:
    packages = tmp_path / "vllm" / "lib" / "python3.11" / "site-packages"
    (packages / "vllm-0.32.0.dist-info").mkdir(parents=True)
    (packages / "torch").mkdir()
    python = tmp_path / "vllm" / "bin" / "python"
    python.parent.mkdir()
    python.touch()
    environments = EngineEnvironments(tmp_path)
    (packages / "torch" / "version.py").write_text(CPU)
    assert "DOCKYARD_VLLM_PYTHON" in (environments.without_gpus("vllm") or "")
    (packages / "torch" / "version.py").write_text(GPU)
    assert environments.without_gpus("vllm") is None
    assert environments.without_gpus("transformers") is None
