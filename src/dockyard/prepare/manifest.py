"""What an artifact holds: its files with their digests, the keys derived from them, and `manifest.json`."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from dockyard.errors import Failed, Reason

MANIFEST = "manifest.json"

# Raise this when the same source, engine, quantization and library would be converted into other files than before.
CONVERSION_RECIPE = 2


class FileEntry(msgspec.Struct, kw_only=True, frozen=True):
    """One file. `mtime_ns` is when it was last known to match `sha256`, as the file system tells it."""

    name: str
    size: int
    sha256: str
    mtime_ns: int


class Manifest(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """The files of an artifact, sorted by name; for a converted or merged one also what it was made from."""

    key: str
    files: tuple[FileEntry, ...]
    source_key: str | None = None
    engine: str | None = None
    quantization: str | None = None
    converter: str | None = None
    base_key: str | None = None

    @property
    def size_bytes(self) -> int:
        return sum(entry.size for entry in self.files)


def imported_key(files: Iterable[FileEntry]) -> str:
    """The key of imported files: the digest of their names and contents, and of nothing else."""
    lines = sorted(f"{entry.name}\0{entry.sha256}\n" for entry in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def converted_key(source_key: str, engine: str, quantization: str, converter: str) -> str:
    """The key of converted files: the digest of everything that determines them."""
    parts = ("converted", source_key, engine, quantization, converter)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def converter_version(engine: str) -> str | None:
    """The converter of `engine` with its versions, without importing it; None where it is not installed."""
    try:
        return f"{engine} {version(engine)} recipe {CONVERSION_RECIPE}"
    except PackageNotFoundError:
        return None


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the artifact in `folder`. Raises `Failed` (ARTIFACT_CORRUPT)."""
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError) as error:
        raise Failed(
            f"the stored files of artifact {folder.name[:12]} have no readable {MANIFEST}; import the model again",
            reason=Reason.ARTIFACT_CORRUPT,
        ) from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write it in one step, so that a reader never sees half of it; on the disk when this returns."""
    half_written = folder / f"{MANIFEST}.new"
    with half_written.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
        file.flush()
        os.fsync(file.fileno())
    half_written.rename(folder / MANIFEST)
    sync_folder(folder)


def wrong_sizes(folder: Path, files: Sequence[FileEntry]) -> list[str]:
    """The names of files that are absent or have another size than they should."""
    return [entry.name for entry in files if _size(folder / entry.name) != entry.size]


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable: a rename is on the disk only after this."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _size(path: Path) -> int | None:
    try:
        return path.stat(follow_symlinks=False).st_size
    except OSError:
        return None
