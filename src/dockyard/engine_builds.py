"""Whether an engine's installed build can use GPUs, told by its files: nothing of it is imported."""

import functools
import mmap
import re
from importlib.util import find_spec
from pathlib import Path

from dockyard.domain.spec import EngineName

_CUDA_OF_TORCH = re.compile(r"^cuda\b[^=]*=\s*['\"]([\d.]+)", re.MULTILINE)
_TORCH_MEND = (
    "install PyTorch's build for your driver's CUDA into the server's environment (pytorch.org tells the command), or "
    "start the server with DOCKYARD_DEVICES=cpu"
)


def without_gpus(engine: str) -> str | None:
    """Why the build in this environment cannot use a GPU, and how to mend it; None if it can."""
    if engine == EngineName.TRANSFORMERS:
        return torch_without_gpus(_folder_of("torch"), _TORCH_MEND)
    if engine == EngineName.CTRANSLATE2:
        return _ctranslate2_without_gpus(_folder_of("ctranslate2"))
    return None


def torch_without_gpus(folder: Path | None, mend: str) -> str | None:
    """`folder`: of the package `torch`. Its `version.py` says `cuda: Optional[str] = '12.8'`, or None."""
    version = folder / "version.py" if folder else None
    if version is None or not version.is_file() or _CUDA_OF_TORCH.search(version.read_text()):
        return None
    return f"the PyTorch that it would compute with is a build for CPUs: {mend}"


@functools.cache
def _ctranslate2_without_gpus(folder: Path | None) -> str | None:
    """Its library for Linux on x86-64 opens CUDA's when it needs them; the others do not know their names."""
    if folder is None:
        return None
    libraries = [*folder.parent.glob("ctranslate2.libs/libctranslate2*"), *folder.glob("*.so*")]
    if any(_mentions(library, b"libcublas") for library in libraries):
        return None
    return (
        "the CTranslate2 that is installed is a build for CPUs: its packages for Linux on x86-64 have CUDA, elsewhere "
        "build it from source, or start the server with DOCKYARD_DEVICES=cpu"
    )


def _mentions(file: Path, words: bytes) -> bool:
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(words) >= 0


def _folder_of(package: str) -> Path | None:
    found = find_spec(package)
    places = list(found.submodule_search_locations or ()) if found else []
    return Path(places[0]) if places else None
