"""The folder of finished artifacts: a key is either absent or complete, never half there."""

import errno
import fcntl
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from dockyard.errors import Failed, Invalid, Reason
from dockyard.prepare.integrity import damaged_files, is_untouched
from dockyard.prepare.manifest import MANIFEST, Manifest, read_manifest, sync_folder

_KEY_FORM = re.compile(r"[0-9a-f]{64}")
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY)


class Artifacts:
    """`<data-dir>/artifacts`. What is published is renamed into place from a folder on the same file system."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: str) -> Path:
        """Where the artifact is or would be. Raises `Invalid` for a key that is no digest."""
        if not _KEY_FORM.fullmatch(key):
            raise Invalid(f"{key[:80]!r} is no artifact key: 64 hexadecimal digits are expected")
        return self.root / key

    def has(self, key: str) -> bool:
        return bool(_KEY_FORM.fullmatch(key)) and (self.root / key / MANIFEST).is_file()

    def find_intact(self, key: str) -> Manifest | None:
        """The manifest of a finished artifact whose files match it; None if it is absent or damaged."""
        manifest = self._find_manifest(key)
        return manifest if manifest and not damaged_files(self.folder(key), manifest) else None

    def is_untouched(self, key: str) -> bool:
        """Whether the artifact is finished and nobody touched its files. Reads no content of theirs."""
        manifest = self._find_manifest(key)
        return manifest is not None and is_untouched(self.folder(key), manifest)

    def _find_manifest(self, key: str) -> Manifest | None:
        if not self.has(key):
            return None
        try:
            return read_manifest(self.folder(key))
        except Failed:
            return None

    def publish(self, built: Path, manifest: Manifest) -> bool:
        """Rename `built`, which holds its manifest, into place. True: an intact one was there and is kept instead.

        A damaged one gives way: it is moved beside `built`, to go with the rest of the scratch folder.
        """
        target = self.folder(manifest.key)
        self.root.mkdir(parents=True, exist_ok=True)
        if self.find_intact(manifest.key) is not None:
            return True
        if target.exists():
            target.rename(built.parent / f"damaged-{uuid4().hex}")
        try:
            built.rename(target)
        except OSError as error:
            if error.errno in _TAKEN and self.find_intact(manifest.key) is not None:
                return True  # another process published the same files a moment ago
            raise
        sync_folder(self.root)
        return False

    def stored(self) -> dict[str, int]:
        """The artifacts that are here, finished or damaged: key → bytes."""
        if not self.root.is_dir():
            return {}
        return {path.name: _bytes_in(path) for path in self.root.iterdir() if _KEY_FORM.fullmatch(path.name)}

    def bury(self, key: str, scratch_root: Path) -> tuple[Path, int] | None:
        """Take an artifact away in one step: the folder that its files are in now, to be removed, and their bytes."""
        grave = scratch_root / f"discarded-{uuid4().hex}"
        scratch_root.mkdir(parents=True, exist_ok=True)
        try:
            self.folder(key).rename(grave)
        except FileNotFoundError:
            return None
        return grave, _bytes_in(grave)


class ScratchLock:
    """Marks a scratch folder as in use for as long as this process lives; the kernel lets go when it dies."""

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise

    def release(self) -> None:
        os.close(self._descriptor)


def clean_scratch(root: Path) -> list[str]:
    """Remove the scratch folders that no living process holds; returns their names."""
    removed: list[str] = []
    if not root.is_dir():
        return removed
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.is_symlink()):
        try:
            lock = ScratchLock(folder)
        except BlockingIOError:
            continue
        try:
            shutil.rmtree(folder)
        finally:
            lock.release()
        removed.append(folder.name)
    return removed


def check_room(folder: Path, needed_bytes: int) -> None:
    """Raise `Failed` (DISK_FULL) if the disk of `folder` has less than `needed_bytes` free."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise Failed(
            f"the data directory's disk has {free / 1e6:,.1f} MB free and this needs {needed_bytes / 1e6:,.1f} MB; "
            "free some space or move the data directory, then try again",
            reason=Reason.DISK_FULL,
        )


def _bytes_in(folder: Path) -> int:
    """Of the files that lie in it; one that vanishes meanwhile counts as nothing."""
    total = 0
    with suppress(FileNotFoundError, NotADirectoryError):
        for path in folder.iterdir():
            with suppress(FileNotFoundError):
                total += path.stat(follow_symlinks=False).st_size
    return total
