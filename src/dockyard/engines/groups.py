"""Which replicas may share an engine, and by which socket they find it."""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from dockyard.domain.adapter_slots import rank_of_slot
from dockyard.protocols.generation import WorkerSpec

MODULE = "dockyard.worker.shared_engine"  # that such an engine is run as
_NAME = 7  # hexadecimal digits; with what comes after them a socket's path is bounded, see `fleets.local.folder`


def group_of(spec: WorkerSpec) -> str:
    """What replicas must have in common to share an engine, as a digest; empty for one that shares with nobody.

    On GPUs the threads of the host are the first one's, whatever the others would have.
    """
    if spec.adapter is None:
        return ""
    common = (
        *(spec.engine, spec.artifact_dir, spec.compute_type, spec.max_batch_size, spec.context_length, spec.device),
        *(spec.gpus, spec.threads if spec.device == "cpu" else 0, spec.cache_bytes, rank_of_slot(spec.adapter.rank)),
        *(spec.eos_token_ids, _tokenizer(Path(spec.model_dir, "tokenizer.json"))),
    )
    return hashlib.sha256(msgspec.json.encode(common)).hexdigest()


def socket_on_gpus(folder: Path, gpu_ids: Sequence[str]) -> Path:
    """Of the one engine that may have these GPUs."""
    return folder / f"{_short(','.join(gpu_ids))}.e0"


def sockets_on_a_cpu(folder: Path, group: str, count: int) -> list[Path]:
    """Of the first `count` engines of a group."""
    return [folder / f"{_short(group)}.e{number}" for number in range(count)]


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_NAME]


def _tokenizer(file: Path) -> str:
    """Schemas are compiled for it in the engine's process."""
    return _digest(file) if file.exists() else ""


@functools.lru_cache(maxsize=256)
def _digest(file: Path) -> str:
    """Folders of artifacts do not change."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def temporary_folder(path: Path) -> Path:
    """Where the engine behind `path` may keep files that end with it: the folder of the replica that started it ends
    before.
    """
    return path.with_name(f"{path.name}d")
