"""Verify: an artifact's files against its manifest."""

from pathlib import Path

from dockyard.domain.job import Phase
from dockyard.prepare.artifacts import Artifacts
from dockyard.prepare.integrity import check_integrity
from dockyard.prepare.manifest import read_manifest
from dockyard.prepare.reporting import ByteProgress, Reporter
from dockyard.protocols.preparation import Outcome, VerifyTask


def run_verify(task: VerifyTask, reporter: Reporter) -> Outcome:
    """Raises `Failed` (ARTIFACT_CORRUPT), naming the files that differ."""
    folder = Artifacts(Path(task.artifacts_dir)).folder(task.key)
    manifest = read_manifest(folder)
    progress = ByteProgress(reporter, Phase.VALIDATING, "verifying", manifest.size_bytes)
    check_integrity(folder, manifest, progress.add)
    return Outcome(key=task.key, size_bytes=manifest.size_bytes, reused=True)
