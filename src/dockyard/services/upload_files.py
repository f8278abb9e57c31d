"""The chunks of uploads on the disk: written under another name, synced, and named only once they are whole."""

import errno
import hashlib
import os
import shutil
from pathlib import Path
from uuid import uuid4

from dockyard.errors import DockyardError, NotFound, Reason, Unavailable

_INCOMING = "incoming-"
_FULL = (errno.ENOSPC, errno.EDQUOT)


class UploadFiles:
    """`root/<session id>/<chunk number>`. Session ids are the server's own, never what a client sent."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, session_id: str) -> Path:
        return self.root / session_id

    def stored(self) -> frozenset[str]:
        """The ids of the sessions that have a folder."""
        return frozenset(path.name for path in self.root.iterdir()) if self.root.is_dir() else frozenset()

    def sizes(self, session_id: str) -> dict[int, int]:
        """Bytes of each whole chunk by its number."""
        try:
            with os.scandir(self.folder(session_id)) as entries:
                return {int(entry.name): entry.stat().st_size for entry in entries if entry.name.isdecimal()}
        except FileNotFoundError:  # no chunk came yet, or the session goes away at this moment
            return {}

    def remove(self, session_id: str) -> None:
        """Remove all that came of the session; no error if there is nothing."""
        shutil.rmtree(self.folder(session_id), ignore_errors=True)

    def remove_halves(self) -> None:
        """Remove what a killed server left half written. Called once, before the first chunk."""
        for path in self.root.glob(f"*/{_INCOMING}*"):
            path.unlink(missing_ok=True)

    def check_room(self, needed_bytes: int) -> None:
        """Raise `Unavailable` (DISK_FULL) if the disk has less than `needed_bytes` free."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        free = shutil.disk_usage(self.root).free
        if free < needed_bytes:
            raise Unavailable(
                f"the upload needs {needed_bytes / 1e6:,.1f} MB and the data directory's disk has {free / 1e6:,.1f} "
                "MB free; free some space on the server, then try again",
                reason=Reason.DISK_FULL,
                retry_after_s=60,
            )


class IncomingChunk:
    """A chunk while it arrives; gone when it is closed unless `keep` was called. Blocks: use a thread."""

    def __init__(self, folder: Path) -> None:
        self.size = 0
        self._path = folder / f"{_INCOMING}{uuid4().hex}"
        self._hash = hashlib.sha256()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = self._path.open("xb", buffering=0)
        except OSError as error:
            raise _not_written(error) from error

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def write(self, data: memoryview) -> None:
        """Raises `Unavailable` (DISK_FULL)."""
        self._hash.update(data)
        self.size += len(data)
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            raise _not_written(error) from error

    def sync(self) -> None:
        """Have the bytes on the disk, and out of the memory that caches it: they are read once, much later."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _not_written(error) from error
        os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def keep(self, number: int) -> None:
        """Name the chunk, in place of one that came before. Raises `NotFound` if the session went away."""
        try:
            self._path.rename(self._path.parent / str(number))
        except FileNotFoundError as error:
            raise NotFound("the upload expired while this chunk came; start a new one") from error

    def close(self) -> None:
        """Idempotent."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def _not_written(error: OSError) -> DockyardError:
    if error.errno in _FULL:
        return Unavailable(
            "the data directory's disk is full, and nothing of the chunk was kept; free some space on the server, "
            "then send the chunk again",
            reason=Reason.DISK_FULL,
            retry_after_s=10,
        )
    if isinstance(error, FileNotFoundError):
        return NotFound("the upload expired while this chunk came; start a new one")
    return Unavailable(
        f"the chunk cannot be written on the server: {error.strerror}; nothing of it was kept",
        reason=Reason.NOT_READY,
        retry_after_s=10,
    )
