"""Do stored files still match their manifest: sizes always, digests of files touched since they last matched."""

from collections.abc import Callable, Iterable
from pathlib import Path

from msgspec.structs import replace

from dockyard.errors import Failed, Reason
from dockyard.prepare.files import digest
from dockyard.prepare.manifest import FileEntry, Manifest, write_manifest, wrong_sizes


def is_untouched(folder: Path, manifest: Manifest) -> bool:
    """Whether no file was touched since it last matched. Reads no content: cheap enough for a server's loop."""
    return not wrong_sizes(folder, manifest.files) and not _touched(folder, manifest.files)


def damaged_files(folder: Path, manifest: Manifest, on_bytes: Callable[[int], None] | None = None) -> list[str]:
    """The names of files that differ from the manifest. Touched ones that match are noted, to be trusted again."""
    damaged = wrong_sizes(folder, manifest.files)
    touched = _touched(folder, [entry for entry in manifest.files if entry.name not in damaged])
    damaged += [entry.name for entry in touched if digest(folder / entry.name, on_bytes) != entry.sha256]
    if touched and not damaged:
        known = tuple(replace(entry, mtime_ns=_mtime_ns(folder, entry)) for entry in manifest.files)
        write_manifest(folder, replace(manifest, files=known))
    return sorted(damaged)


def check_integrity(folder: Path, manifest: Manifest, on_bytes: Callable[[int], None] | None = None) -> None:
    """Raise `Failed` (ARTIFACT_CORRUPT), naming the files that differ."""
    damaged = damaged_files(folder, manifest, on_bytes)
    if damaged:
        raise corrupt(damaged)


def corrupt(damaged: Iterable[str]) -> Failed:
    """The error that names the damaged files."""
    return Failed(
        f"stored files are absent or differ from their digests: {', '.join(damaged)}; import the model again",
        reason=Reason.ARTIFACT_CORRUPT,
    )


def _touched(folder: Path, files: tuple[FileEntry, ...] | list[FileEntry]) -> list[FileEntry]:
    return [entry for entry in files if _mtime_ns(folder, entry) != entry.mtime_ns]


def _mtime_ns(folder: Path, entry: FileEntry) -> int:
    return (folder / entry.name).stat(follow_symlinks=False).st_mtime_ns
