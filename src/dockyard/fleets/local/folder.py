"""Where the replicas of one data directory keep their logs and sockets: private folders, paths short enough to bind."""

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Container, Iterable
from pathlib import Path

from dockyard.errors import Failed
from dockyard.fleets.local import log

_LONGEST_SOCKET_PATH = 107  # sun_path holds 108 bytes, the last is a NUL
_SHORT_NAME = 8


class RunFolder:
    """`logs` is the run directory itself; `sockets` too, unless that is too deep for a socket's path."""

    def __init__(self, run_dir: Path) -> None:
        self.path = Path(os.path.realpath(run_dir))
        self.sockets = self.path
        if len(os.fsencode(self.path)) + len("/12345678.sock") > _LONGEST_SOCKET_PATH:
            digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
            self.sockets = Path(f"/tmp/dockyard-{os.getuid()}-{digest}")

    def ensure(self) -> None:
        """Make the folders, private to this user. Raises `Failed` where that cannot be."""
        for folder in {self.path, self.sockets}:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                message = f"{folder} cannot be made ({error.strerror}); choose another data directory"
                raise Failed(message) from error
            _check_private(folder)

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
        keep = set(used)
        for path in self.sockets.glob("*.sock"):
            if str(path) not in keep:
                path.unlink(missing_ok=True)

    def leave(self) -> None:
        """Drop the folder beside the run directory once it is empty; the run directory itself stays."""
        if self.sockets != self.path:
            with contextlib.suppress(OSError):
                self.sockets.rmdir()


def _socket_names(replica_id: str) -> tuple[str, str]:
    """First 8 hex digits of the id; should two ids begin alike, 8 digits of its digest."""
    digest = hashlib.sha256(replica_id.encode()).hexdigest()[:_SHORT_NAME]
    found = re.search(r"[0-9a-f]{8}", replica_id)
    return (found.group() if found else digest), digest


def _check_private(folder: Path) -> None:
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
        raise Failed(f"{folder} is not a folder of this user; remove it or choose another data directory")
    if stat.S_IMODE(facts.st_mode) & 0o077:
        folder.chmod(0o700)
