"""Where the replicas of one data directory keep their logs and sockets: private folders, paths short enough to bind."""

import contextlib
import hashlib
import os
import re
import shutil
import socket
import stat
from collections.abc import Container, Iterable
from pathlib import Path

from dockyard.engines import groups
from dockyard.errors import Failed
from dockyard.fleets.local import log

_LONGEST_SOCKET_PATH = 107  # sun_path holds 108 bytes, the last is a NUL
_SHORT_NAME = 8
_LONGEST_NAME_OF_AN_ENGINE = len("/12345678.tmp/") + 36  # vLLM names its own sockets by a UUID, in the temporary folder


class RunFolder:
    """`path` is the run directory, with the logs; `sockets` is it, too, unless that is too deep for a socket's path.

    `temporary` likewise, for the sockets that an engine makes in the temporary folder of its replica.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = Path(os.path.realpath(run_dir))
        self.sockets = _not_too_deep(self.path, len("/12345678.sock"))
        self.temporary = _not_too_deep(self.sockets, _LONGEST_NAME_OF_AN_ENGINE)

    def ensure(self) -> None:
        """Make the folders, private to this user. Raises `Failed` where that cannot be."""
        for folder in {self.path, self.sockets}:
            _make_private(folder)

    def make_temporary(self, socket_path: str) -> Path:
        """The temporary folder of the replica behind `socket_path`, empty. Raises as `ensure` does."""
        folder = temporary_folder(socket_path)
        _make_private(folder.parent)
        shutil.rmtree(folder, ignore_errors=True)
        _make_private(folder)
        return folder

    def make_shared(self) -> str:
        """The folder of the sockets of engines that replicas share. Raises as `ensure` does."""
        _make_private(self.temporary)
        return str(self.temporary)

    def log_path(self, replica_id: str) -> Path:
        return log.path_of(self.path, replica_id)

    def socket_path(self, replica_id: str, taken: Container[str]) -> str:
        """A path to bind for a replica. What lies there is stale, unless it is in `taken`."""
        for name in _socket_names(replica_id):
            path = str(self.sockets / f"{name}.sock")
            if path not in taken:
                Path(path).unlink(missing_ok=True)
                return path
        raise Failed(f"every socket name for replica {replica_id} is in use; stop a replica or use another id")

    def remove_sockets_except(self, used: Iterable[str]) -> None:
        """Temporary folders go with their replicas' sockets."""
        keep = set(used)
        kept_folders = {temporary_folder(path) for path in keep}
        for folder in self.temporary.glob("*.tmp"):
            if folder not in kept_folders:
                shutil.rmtree(folder, ignore_errors=True)
        for path in self.sockets.glob("*.sock"):
            if str(path) not in keep:
                path.unlink(missing_ok=True)
        for path in self.temporary.glob("*.e*"):
            if path.is_socket() and not _answers(path):  # a shared engine that was killed
                path.unlink(missing_ok=True)
                shutil.rmtree(groups.temporary_folder(path), ignore_errors=True)

    def leave(self) -> None:
        """Drop the folders beside the run directory once they are empty; the run directory itself stays."""
        for path in self.temporary.glob("*.turn"):  # of shared engines
            path.unlink(missing_ok=True)
        for folder in {self.sockets, self.temporary} - {self.path}:
            with contextlib.suppress(OSError):
                folder.rmdir()


def temporary_folder(socket_path: str) -> Path:
    """Where the replica behind `socket_path` may keep files that end with it, whatever ends it."""
    path = Path(socket_path)
    return _not_too_deep(path.parent, _LONGEST_NAME_OF_AN_ENGINE) / f"{path.stem}.tmp"


def _not_too_deep(folder: Path, room: int) -> Path:
    """`folder`, if a socket with a name of `room` bytes can be bound in it, else one of its own that is short."""
    if len(os.fsencode(folder)) + room <= _LONGEST_SOCKET_PATH:
        return folder
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(f"/tmp/dockyard-{os.getuid()}-{digest}")


def _socket_names(replica_id: str) -> tuple[str, str]:
    """First 8 hex digits of the id; should two ids begin alike, 8 digits of its digest."""
    digest = hashlib.sha256(replica_id.encode()).hexdigest()[:_SHORT_NAME]
    found = re.search(r"[0-9a-f]{8}", replica_id)
    return (found.group() if found else digest), digest


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        message = f"{folder} cannot be made ({error.strerror}); choose another data directory"
        raise Failed(message) from error
    _check_private(folder)


def _check_private(folder: Path) -> None:
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
        raise Failed(f"{folder} is not a folder of this user; remove it or choose another data directory")
    if stat.S_IMODE(facts.st_mode) & 0o077:
        folder.chmod(0o700)
