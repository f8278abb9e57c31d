"""Sending an archive of this machine in chunks, several at a time; begun again, it goes on where it was."""

import hashlib
import json
import math
import os
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dockyard.cli.command import Session
from dockyard.cli.download import bytes_bar
from dockyard.cli.failures import ApiRefused, BadUsage, CommandFailed, Unreachable
from dockyard.cli.output import size_text
from dockyard.cli.watch import LONGEST_S, UNREACHABLE_FOR_S, Json

if TYPE_CHECKING:
    from dockyard.cli.client import Client

CHUNK_BYTES = 16 << 20
MOST_CHUNKS = 100_000  # that the server takes
AT_ONCE = 4  # chunks on their way, so at most five in memory
_KINDS = ("tar", "zip")
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def is_archive(path: Path) -> bool:
    """Whether the import of `path` is an upload. Raises `BadUsage` for an archive of a kind that is not read."""
    name = path.name.lower()
    if name.endswith(_COMPRESSED):
        raise BadUsage(f"error: {path} is compressed, which saves nothing for weights; unpack it and pack a plain tar")
    return name.endswith(tuple(f".{kind}" for kind in _KINDS)) and not path.is_dir()


def upload(session: Session, path: Path, wish: Json, chunk_bytes: int = CHUNK_BYTES) -> Json:
    """Send the archive and complete the upload; returns the reply that names the import's job.

    `wish` holds `name`, `modelType` and `baseModelId` of the model. Ctrl-C leaves the chunks that are there, and the
    same call goes on with the others, until `forget_upload` says that all is done. Raises `CommandFailed`.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise CommandFailed(
            f"error: {path} cannot be read: {error.strerror}",
            "  check the path: an archive is one of the machine that this command runs on",
        ) from None
    if stat.st_size == 0:
        raise CommandFailed(f"error: {path} is empty; pack the model's folder again: tar -cf {path.stem}.tar FOLDER")
    memory = _Memory(session.client.url, path, stat, wish)
    try:
        known = memory.recall(session.client) or memory.begin(session.client, chunk_bytes)
        sha256 = _send(session, path, stat.st_size, known)
        body = None if sha256 is None else {"fileSha256": sha256}
        reply = session.client.call("POST", "files", "session", known["sessionId"], "complete", body=body)
    except OSError as error:
        raise CommandFailed(f"error: {path} cannot be read: {error.strerror}") from None
    except KeyboardInterrupt:
        session.out.note("\nthe same command goes on with the upload")
        raise
    return reply


def forget_upload(session: Session, path: Path, wish: Json) -> None:
    """The archive was imported: the same call sends it anew."""
    with suppress(OSError):
        _Memory(session.client.url, path, path.stat(), wish).forget()


class _Memory:
    """Which session an archive is sent in: a file of this user's. An import that failed may have left it its chunks."""

    def __init__(self, url: str, path: Path, stat: os.stat_result, wish: Json) -> None:
        self._name, self._size, self._wish = path.name, stat.st_size, wish
        what = [url, str(path.absolute()), stat.st_size, stat.st_mtime_ns, wish]
        key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
        self._file = _state_dir() / "uploads" / f"{key}.json"

    def recall(self, client: "Client") -> Json | None:
        """The session with what the server has of it; None if there is none, or it expired."""
        try:
            known = json.loads(self._file.read_text())
            told = client.get("files", "session", known["sessionId"])
            if told["dockStatusId"] and client.get("dock-status", told["dockStatusId"])["status"] != "IN_PROGRESS":
                return None  # it was imported, or refused for what it holds
        except (OSError, ValueError, KeyError):
            return None
        except ApiRefused as refusal:
            if refusal.status != 404:
                raise
            return None
        return {**told, "chunkBytes": known["chunkBytes"]}

    def begin(self, client: "Client", chunk_bytes: int) -> Json:
        chunk_bytes = max(chunk_bytes, math.ceil(self._size / MOST_CHUNKS))
        total = math.ceil(self._size / chunk_bytes)
        body = {
            **self._wish,
            "fileContext": "model",
            "totalChunks": total,
            "fileExtension": self._name.rpartition(".")[2].lower(),
            "fileName": self._name,
            "fileSize": self._size,
        }
        told = client.call("POST", "files", "session", "start", body=body)
        known = {"sessionId": told["sessionId"], "chunkBytes": chunk_bytes}
        with suppress(OSError):  # without it an interrupted upload starts anew; no reason not to send it
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file.write_text(json.dumps(known))
        return {**told, **known, "totalChunks": total, "receivedChunks": [], "dockStatusId": None}

    def forget(self) -> None:
        self._file.unlink(missing_ok=True)


def _send(session: Session, path: Path, size: int, known: Json) -> str | None:
    """Send the chunks that are missing; returns the SHA-256 of the whole, None if the upload was completed before."""
    if known["dockStatusId"] is not None:
        return None
    there = set(known["receivedChunks"])
    begun = f"; {len(there)} of {known['totalChunks']} chunks are there" if there else ""
    session.out.note(f"sending {path.name}, {size_text(size)}{begun}")
    whole = hashlib.sha256()
    sender = _Sender(session.client, known["sessionId"])
    with path.open("rb") as file, bytes_bar(session, "UPLOADING", size) as show, sender:
        done = 0
        for number in range(known["totalChunks"]):
            chunk = file.read(known["chunkBytes"])
            whole.update(chunk)  # of those that are there, too: the file must be the one that was begun with
            if number in there:
                done += len(chunk)
            else:
                done += sender.send(number, chunk)
            show(done)
        while sent := sender.wait():
            done += sent
            show(done)
    return whole.hexdigest()


class _Sender:
    """Sends chunks from threads, `AT_ONCE` at a time. At the end of the `with` block none is on its way."""

    def __init__(self, client: "Client", session_id: str) -> None:
        self._client = client
        self._session_id = session_id
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="upload")
        self._sending: set[Future[int]] = set()
        self._stopped = threading.Event()

    def send(self, number: int, chunk: bytes) -> int:
        """Begin to send the chunk once there is a place; returns the bytes that have arrived since the last call."""
        arrived = self.wait() if len(self._sending) >= AT_ONCE else 0
        self._sending.add(self._pool.submit(self._deliver, number, chunk))
        return arrived

    def wait(self) -> int:
        """Wait for a chunk to arrive; the bytes of all that did, 0 if none is on its way. Raises what went wrong."""
        ended, self._sending = wait(self._sending, return_when=FIRST_COMPLETED) if self._sending else (set(), set())
        return sum(future.result() for future in ended)

    def __enter__(self) -> "_Sender":
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _deliver(self, number: int, chunk: bytes) -> int:
        """A server that comes back within a minute is waited for."""
        away_s = 0.0
        digest = hashlib.sha256(chunk).hexdigest()
        while True:
            try:
                self._client.send_chunk(self._session_id, number, chunk, digest)
                return len(chunk)
            except CommandFailed as failure:
                if not _passes(failure) or away_s > UNREACHABLE_FOR_S or self._stopped.wait(LONGEST_S):
                    raise
                away_s += LONGEST_S


def _passes(failure: CommandFailed) -> bool:
    """Whether to try again: the server is away or says not now; a full disk is for a person to mend."""
    if isinstance(failure, ApiRefused):
        return failure.status == 503 and not failure.has("DISK_FULL")
    return isinstance(failure, Unreachable)


def _state_dir() -> Path:
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "dockyard"
