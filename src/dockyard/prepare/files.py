"""Reading files of a stranger's folder without leaving it, and writing artifact files that are hashed on the way."""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from dockyard.errors import Failed, Reason
from dockyard.prepare.manifest import FileEntry

CHUNK_BYTES = 1 << 20
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK)  # of this file system, or across two
OnBytes = Callable[[int], None]


@contextmanager
def open_inside(root: Path, name: str) -> Iterator[BinaryIO]:
    """Open `root/name` for reading, if it is a regular file inside `root` (already resolved) once opened.

    The opened file is judged, not its name, so that a link swapped in between leads nowhere. Raises `Failed`.
    """
    # O_NONBLOCK: opening a FIFO must not wait for a writer. It has no effect on regular files.
    descriptor = os.open(root / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Failed(f"{name} is no regular file; remove it from the folder", reason=Reason.SOURCE_NOT_SUPPORTED)
        if not Path(os.readlink(f"/proc/self/fd/{descriptor}")).is_relative_to(root):
            raise leads_out(name)
        yield file


def leads_out(name: str) -> Failed:
    return Failed(
        f"{name} is a link that leads out of the folder; copy the folder with its links followed (cp -rL) "
        "and import the copy",
        reason=Reason.PATH_NOT_ALLOWED,
    )


def read_inside(root: Path, name: str, limit_bytes: int) -> bytes | None:
    """The content of `root/name`; None if it is larger than `limit_bytes`."""
    with open_inside(root, name) as file:
        content = file.read(limit_bytes + 1)
    return None if len(content) > limit_bytes else content


class ArtifactFile:
    """A file being written: hashed on the way, then synced to the disk and made read-only."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._hash = hashlib.sha256()
        self._file = (folder / name).open("xb")

    def write(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    def finish(self) -> FileEntry:
        self._file.flush()
        entry = _seal(self._file.fileno(), self.name, self._hash.hexdigest())
        # What is read back to be verified must come from the disk, not from the memory that it was written from.
        os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self._file.close()
        return entry

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def write_file(folder: Path, name: str, content: bytes) -> FileEntry:
    with ArtifactFile(folder, name) as file:
        file.write(content)
        return file.finish()


def copy_inside(root: Path, name: str, folder: Path, on_bytes: OnBytes) -> FileEntry:
    """Copy `root/name` to `folder/name`, telling `on_bytes` of each chunk."""
    with open_inside(root, name) as source, ArtifactFile(folder, name) as file:
        while chunk := source.read(CHUNK_BYTES):
            file.write(chunk)
            on_bytes(len(chunk))
        return file.finish()


def take_inside(root: Path, name: str, folder: Path, on_bytes: OnBytes) -> FileEntry:
    """`folder/name` becomes another name of the file `root/name`, which is ours; a copy where that cannot be."""
    with open_inside(root, name):
        try:
            os.link(root / name, folder / name)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return copy_inside(root, name, folder, on_bytes)
    checksum = digest(folder / name, on_bytes)
    descriptor = os.open(folder / name, os.O_RDONLY)
    try:
        entry = _seal(descriptor, name, checksum)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # to be verified from the disk
    finally:
        os.close(descriptor)
    return entry


def seal_file(path: Path) -> FileEntry:
    """The entry of a file that a library has written: hashed, synced, made read-only, and left in the page cache."""
    checksum = digest(path)
    descriptor = os.open(path, os.O_RDWR)
    try:
        return _seal(descriptor, path.name, checksum)
    finally:
        os.close(descriptor)


def digest(path: Path, on_bytes: OnBytes | None = None) -> str:
    """The SHA-256 of a file, hex."""
    checksum = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            checksum.update(chunk)
            if on_bytes:
                on_bytes(len(chunk))
    return checksum.hexdigest()


def _seal(descriptor: int, name: str, sha256: str) -> FileEntry:
    os.fchmod(descriptor, 0o444)
    os.fsync(descriptor)
    status = os.fstat(descriptor)
    return FileEntry(name=name, size=status.st_size, sha256=sha256, mtime_ns=status.st_mtime_ns)
