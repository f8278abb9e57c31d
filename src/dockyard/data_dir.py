"""The data directory: what lies where, held by one server at a time, its secrets readable by its owner alone."""

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from dockyard.domain.access import KEY_FORM
from dockyard.errors import Conflict, Invalid


@dataclass(frozen=True, slots=True)
class Paths:
    """The data directory. `artifacts`, `scratch` and `exports` share a file system: a rename finishes what is made."""

    data: Path

    @property
    def artifacts(self) -> Path:
        return self.data / "artifacts"

    @property
    def scratch(self) -> Path:
        return self.data / "scratch"

    @property
    def exports(self) -> Path:
        return self.data / "exports"

    @property
    def uploads(self) -> Path:
        return self.data / "uploads"

    @property
    def downloads(self) -> Path:
        """What comes from a hub, a folder for each model; of the same file system, too."""
        return self.data / "downloads"

    @property
    def engines(self) -> Path:
        """Python environments of engines that have their own."""
        return self.data / "engines"

    @property
    def run(self) -> Path:
        return self.data / "run"

    @property
    def admin_key(self) -> Path:
        return self.data / "admin-key"

    @property
    def signing_key(self) -> Path:
        return self.data / "signing-key"

    @property
    def lock(self) -> Path:
        return self.data / "lock"

    def make(self) -> None:
        """Make the folders that are absent. Raises `Invalid` where that is not allowed."""
        try:
            for path in (self.data, self.artifacts, self.scratch, self.exports, self.uploads, self.run):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            told = f"the data directory {self.data} cannot be made: {error.strerror}; name another with --data-dir"
            raise Invalid(told, field="data_dir") from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[TextIO]:
    """Hold the data directory. The kernel lets go when the process ends, however it ends."""
    try:
        file = path.open("a+")
    except OSError as error:
        raise _not_writable(path, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Conflict(
                f"another dockyard serves from {path.parent}; stop it, or choose another --data-dir"
            ) from error
        os.chmod(path, stat.S_IRUSR | stat.S_IWUSR)
        yield file


def read_kept_key(file: Path) -> str | None:
    """The key in the file; None if there is none, or the first start was cut off before it was written."""
    try:
        text = file.read_bytes().decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Invalid(f"{file} cannot be read: {error.strerror}", field="data_dir") from error
    if text and not KEY_FORM.match(text):
        raise Invalid(f"{file} holds no key; remove it, and the next start makes a new one", field="data_dir")
    return text or None


def write_private(file: Path, text: str) -> None:
    try:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600), "w") as out:
            os.fchmod(out.fileno(), 0o600)  # an empty file that was there keeps its own mode
            out.write(text)
    except OSError as error:
        raise _not_writable(file, error) from error


def _not_writable(path: Path, error: OSError) -> Invalid:
    return Invalid(
        f"{path} cannot be written: {error.strerror}; let the server's user write there, or choose another --data-dir",
        field="data_dir",
    )
