"""Verify: an artifact's files against its manifest."""

from pathlib import Path

from msgspec.structs import replace

from dockyard.domain.job import Phase
from dockyard.errors import Failed, Reason
from dockyard.prepare.artifacts import Artifacts
from dockyard.prepare.files import digest
from dockyard.prepare.manifest import FileEntry, read_manifest, write_manifest, wrong_sizes
from dockyard.prepare.reporting import ByteProgress, Reporter
from dockyard.protocols.preparation import Outcome, VerifyTask


def run_verify(task: VerifyTask, reporter: Reporter) -> Outcome:
    """Sizes always; digests only of files touched since they were last known to match, which is then noted.

    Raises `Failed` (ARTIFACT_CORRUPT), naming the files.
    """
    folder = Artifacts(Path(task.artifacts_dir)).folder(task.key)
    manifest = read_manifest(folder)
    damaged = wrong_sizes(folder, manifest.files)
    whole = [entry for entry in manifest.files if entry.name not in damaged]
    touched = [entry for entry in whole if _mtime_ns(folder, entry) != entry.mtime_ns]
    progress = ByteProgress(reporter, Phase.VALIDATING, "verifying", sum(entry.size for entry in touched))
    damaged += [entry.name for entry in touched if digest(folder / entry.name, progress.add) != entry.sha256]
    if damaged:
        raise Failed(
            f"stored files differ from their digests: {', '.join(sorted(damaged))}; import the model again",
            reason=Reason.ARTIFACT_CORRUPT,
        )
    if touched:
        known = tuple(replace(entry, mtime_ns=_mtime_ns(folder, entry)) for entry in manifest.files)
        write_manifest(folder, replace(manifest, files=known))
    return Outcome(key=task.key, size_bytes=manifest.size_bytes, reused=True)


def _mtime_ns(folder: Path, entry: FileEntry) -> int:
    return (folder / entry.name).stat(follow_symlinks=False).st_mtime_ns
