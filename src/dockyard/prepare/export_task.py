"""Export: an artifact's files and `deployconfig.json` as one tar, the same bytes whenever the same things go in."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import IO, BinaryIO, cast

from dockyard.domain.export import DEPLOY_CONFIG
from dockyard.domain.job import Phase
from dockyard.prepare.artifacts import Artifacts, check_room
from dockyard.prepare.files import CHUNK_BYTES, ArtifactFile, OnBytes
from dockyard.prepare.integrity import corrupt
from dockyard.prepare.manifest import FileEntry, Manifest, read_manifest, sync_folder, wrong_sizes
from dockyard.prepare.reporting import ByteProgress, Reporter
from dockyard.protocols.preparation import ExportTask, Outcome

_MTIME = 315_532_800  # 1980-01-01, of every file in every archive; tools complain of older ones
_MODE = 0o644
_AROUND_A_FILE = 4 * tarfile.BLOCKSIZE  # bytes at most: its header, the record of a size past 8 GiB, the padding
_AROUND_ALL = 1 << 20  # bytes, far more than deployconfig.json and the end take


def run_export(task: ExportTask, reporter: Reporter) -> Outcome:
    """The archive appears in one step, safe on the disk. Raises `Failed` (ARTIFACT_CORRUPT, DISK_FULL)."""
    source = Artifacts(Path(task.artifacts_dir)).folder(task.source_key)
    manifest = read_manifest(source)
    if damaged := wrong_sizes(source, manifest.files):
        raise corrupt(damaged)
    scratch, archive = Path(task.scratch_dir), Path(task.archive)
    check_room(scratch, _AROUND_ALL + sum(entry.size + _AROUND_A_FILE for entry in manifest.files))
    progress = ByteProgress(reporter, Phase.COPYING, "packing", manifest.size_bytes)
    with ArtifactFile(scratch, archive.name) as out:
        write_archive(out, task, source, manifest, progress.add)
        written = out.finish()
    archive.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    (scratch / written.name).rename(archive)
    sync_folder(archive.parent)
    return Outcome(key=manifest.key, size_bytes=written.size, sha256=written.sha256)


def write_archive(out: ArtifactFile, task: ExportTask, source: Path, manifest: Manifest, on_bytes: OnBytes) -> None:
    """Write the tar: sorted names; time, owner and mode alike for all. Each file is verified while it is read."""
    config = (json.dumps(task.deploy_config, indent=2, ensure_ascii=False) + "\n").encode()
    entries = {entry.name: entry for entry in manifest.files}
    with tarfile.TarFile(
        fileobj=cast(IO[bytes], out), mode="w", format=tarfile.PAX_FORMAT, copybufsize=CHUNK_BYTES
    ) as tar:
        for name in sorted({*entries, DEPLOY_CONFIG}):
            path = f"{task.folder}/{name}"
            if name == DEPLOY_CONFIG:
                tar.addfile(_member(path, len(config)), io.BytesIO(config))
                continue
            with (source / name).open("rb") as file:
                reading = _Verified(file, entries[name], on_bytes)
                tar.addfile(_member(path, entries[name].size), cast(IO[bytes], reading))
                reading.check()


def _member(path: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.size, member.mtime, member.mode = size, _MTIME, _MODE
    return member


class _Verified:
    """A stored file that is compared with its manifest entry by the bytes that go into the archive."""

    def __init__(self, file: BinaryIO, entry: FileEntry, on_bytes: OnBytes) -> None:
        self._file = file
        self._entry = entry
        self._on_bytes = on_bytes
        self._hash = hashlib.sha256()

    def read(self, count: int) -> bytes:
        """Exactly `count` bytes. Raises `Failed` (ARTIFACT_CORRUPT) if the file ends before."""
        chunk = self._file.read(count)
        if len(chunk) < count:
            raise corrupt([self._entry.name])
        self._hash.update(chunk)
        self._on_bytes(count)
        return chunk

    def check(self) -> None:
        """Raise `Failed` (ARTIFACT_CORRUPT) unless all that was read is what the manifest says."""
        if self._hash.hexdigest() != self._entry.sha256:
            raise corrupt([self._entry.name])
