"""One file of a hub onto the disk: it goes on where it broke off, and counts only once size and digest are right."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import httpx2
from huggingface_hub.errors import HfHubHTTPError

from dockyard.errors import Failed, Reason
from dockyard.prepare.files import CHUNK_BYTES
from dockyard.prepare.hub_client import Hub, HubFile
from dockyard.prepare.manifest import sync_folder

OnBytes = Callable[[int], None]

_A_STEP = 1 << 20  # bytes that show that a download comes on, however often its connection breaks


class Download:
    """`file` of the repository at `commit`, into `folder`; what is not complete yet lies in `partial`."""

    def __init__(self, hub: Hub, commit: str, file: HubFile, folder: Path, partial: Path, on_bytes: OnBytes) -> None:
        self._hub = hub
        self._commit = commit
        self._file = file
        self._target = folder / file.name
        self._partial = partial / file.name
        self._on_bytes = on_bytes
        self._mark = 0

    def run(self) -> None:
        """Fetch what is missing; `on_bytes` is told what was there before, too. Raises `Failed`."""
        if self._target.exists():
            self._on_bytes(self._file.size)
            return
        if self._size() > self._file.size:
            self._partial.unlink()
        self._on_bytes(self._size())
        told = self._fetch_and_check()
        if told is None:
            return
        # Once more from the start: the part that was kept may be what is wrong.
        self._drop()
        told = self._fetch_and_check()
        if told is not None:
            raise Failed(
                f"{self._file.name} came from the hub {told}, twice; if it happens again, the repository or what is "
                "between it and the server is at fault",
                reason=Reason.DOWNLOAD_CORRUPT,
            )

    def _fetch_and_check(self) -> str | None:
        """None when the file is in its place, else what is wrong with it."""
        self._partial.touch()
        if self._size() < self._file.size:
            self._mark = self._size()
            told = self._hub.patiently(self._append, self._commit, self._came_on)
            if told is not None:
                return told
        promised = self._file.digest
        if promised and (digest := _digest(self._partial, promised, self._file.size)) != promised:
            return f"with the digest {digest[:12]}… where {promised[:12]}… was promised"
        _sync(self._partial)
        self._partial.rename(self._target)
        sync_folder(self._target.parent)
        return None

    def _append(self) -> str | None:
        """One connection's worth. None if all that was sent fits, else what is wrong with it."""
        offset = self._size()
        try:
            return self._append_from(offset)
        except HfHubHTTPError as error:
            if offset and error.response.status_code == 416:
                return f"shorter than the {self._file.size} bytes that it promised"
            raise

    def _append_from(self, offset: int) -> str | None:
        with self._hub.opened(self._file.name, self._commit, offset) as response:
            if offset and response.status_code == 200:  # the hub sends the whole file instead of the rest
                self._drop()
            elif offset and not _is_rest(response, offset, self._file.size):
                return "in another part than was asked for"
            return self._write(response)

    def _came_on(self) -> bool:
        """Whether the try that just broke off had brought a good deal."""
        before, self._mark = self._mark, self._size()
        return self._mark >= before + _A_STEP

    def _write(self, response: httpx2.Response) -> str | None:
        with self._partial.open("ab") as file:
            for chunk in response.iter_bytes():
                if file.tell() + len(chunk) > self._file.size:
                    return f"longer than the {self._file.size} bytes that it promised"
                file.write(chunk)
                file.flush()  # what a killed process has counted is there
                self._on_bytes(len(chunk))
            if file.tell() < self._file.size:
                raise httpx2.RemoteProtocolError("the hub ended the file early")
        return None

    def _drop(self) -> None:
        self._on_bytes(-self._size())
        self._partial.write_bytes(b"")

    def _size(self) -> int:
        return self._partial.stat().st_size if self._partial.exists() else 0


def _is_rest(response: httpx2.Response, offset: int, size: int) -> bool:
    return response.status_code == 206 and response.headers.get("content-range") == f"bytes {offset}-{size - 1}/{size}"


def _digest(path: Path, like: str, size: int) -> str:
    """The file's digest of the kind that `like` is."""
    checksum = hashlib.sha256() if len(like) == 64 else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as content:
        while chunk := content.read(CHUNK_BYTES):
            checksum.update(chunk)
    return checksum.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
