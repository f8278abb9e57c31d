"""A hub on loopback that speaks the protocol of the real one, and fails when it is told to.

Two servers: the hub, which lists repositories, holds small files and asks for tokens; and the store beside it that
large files are redirected to, on a port of its own, which is another origin.
"""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

CACHE = "/api/resolve-cache/models/"
LARGE = (".safetensors", ".gguf", ".bin")
Files = dict[str, bytes]


@dataclass(frozen=True)
class Asked:
    """A request as it came in."""

    server: str  # "hub" or "store"
    method: str
    path: str
    token: str | None
    range: str | None


@dataclass
class Repository:
    """`revisions`: what a branch or tag stands for; a commit stands for itself. `asks_for`: the token that opens it."""

    commits: dict[str, Files]
    revisions: dict[str, str]
    asks_for: str | None = None
    gated: bool = False
    disabled: bool = False
    tells_no_code: bool = False  # of a refusal: not every hub does


@dataclass
class Faults:
    """What goes wrong from now on. A list is used up, one entry for each request that it applies to."""

    cut_after: list[int] = field(default_factory=list[int])  # bytes of a large file, then the connection breaks
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list[tuple[int, dict[str, str]]])  # of the hub
    corrupt: list[str] = field(default_factory=list[str])  # files that come with a wrong byte
    swapped: Files = field(default_factory=Files)  # what comes in place of what the listing tells of
    told_sizes: dict[str, int] = field(default_factory=dict[str, int])  # what the listing says instead
    ignores_ranges: bool = False
    tells_no_sizes: bool = False
    silent: bool = False  # takes requests and answers none
    no_hub: bool = False  # a page of HTML for everything
    pause_after: int | None = None  # bytes of a large file; then `paused` is set and it waits for `go_on`


class HubDouble:
    """`with HubDouble() as hub:` serves; `hub.endpoint` is what HF_ENDPOINT should be."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.faults = Faults()
        self.asked: list[Asked] = []
        self.served: Counter[str] = Counter()  # bytes of each file that left
        self.paused = threading.Event()
        self.go_on = threading.Event()
        self._lock = threading.Lock()
        self._hub = _Server(self, "hub")
        self._store = _Server(self, "store")

    @property
    def endpoint(self) -> str:
        return self._hub.url

    @property
    def store(self) -> str:
        return self._store.url

    def __enter__(self) -> Self:
        self._hub.start()
        self._store.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self._hub.stop()
        self._store.stop()

    def forget(self) -> None:
        """As new, at the same address."""
        self.repositories.clear()
        self.faults = Faults()
        self.asked.clear()
        self.served.clear()
        self.paused.clear()
        self.go_on.clear()

    def add(self, name: str, files: Files, revision: str = "main", **rules: Any) -> str:
        """Push a commit to the branch; returns it."""
        listed = sorted((file, hashlib.sha256(content).hexdigest()) for file, content in files.items())
        commit = hashlib.sha1(json.dumps([name, revision, listed]).encode(), usedforsecurity=False).hexdigest()
        repository = self.repositories.setdefault(name, Repository({}, {}, **rules))
        repository.commits[commit] = files
        repository.revisions[revision] = commit
        return commit

    def add_folder(self, name: str, folder: Path, **rules: Any) -> str:
        """Push a model folder to the default branch; returns the commit."""
        return self.add(name, {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}, **rules)

    def fetched(self) -> set[str]:
        """The files of which a byte was sent."""
        return {name for name, count in self.served.items() if count}

    def note(self, asked: Asked) -> None:
        with self._lock:
            self.asked.append(asked)

    def count(self, file: str, sent: int) -> None:
        with self._lock:
            self.served[file] += sent

    def take(self, fault: list[Any]) -> Any | None:
        with self._lock:
            return fault.pop(0) if fault else None


@contextmanager
def a_port_that_nobody_serves() -> Iterator[str]:
    """An address that refuses connections: bound, and not listened on."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, double: HubDouble, kind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.double = double
        self.kind = kind
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: the tests read `asked`."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    @property
    def _kind(self) -> str:
        return self._own_server.kind

    @property
    def _double(self) -> HubDouble:
        return self._own_server.double

    @property
    def _own_server(self) -> _Server:
        assert isinstance(self.server, _Server)
        return self.server

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        token = self.headers.get("authorization")
        asked = Asked(self._kind, self.command, path, token, self.headers.get("range"))
        self._double.note(asked)
        if self._double.faults.silent:
            self._double.go_on.wait()
            self.close_connection = True
        elif self._double.faults.no_hub:
            self._send(200, b"<html>please log in to the guest network</html>", {"content-type": "text/html"})
        elif self._kind == "store":
            _, commit_of, repository, file = path.split("/", 3)
            files = self._double.repositories[repository.replace("--", "/")].commits[commit_of]
            self._send_file(file, files[file], {})
        elif answer := self._double.take(self._double.faults.answers):
            self._send(answer[0], b"", answer[1])
        elif path.startswith(CACHE):
            name, commit, file = path.removeprefix(CACHE).rsplit("/", 2)
            content = self._double.repositories[name].commits[commit][file]
            self._send_file(file, content, {"x-repo-commit": commit, "etag": f'"{_etag(file, content)}"'})
        elif path.startswith("/api/models/"):
            name, _, revision = path.removeprefix("/api/models/").partition("/revision/")
            self._list(name, revision or "main")
        else:
            name, _, rest = path.removeprefix("/").partition("/resolve/")
            commit, _, file = rest.partition("/")
            self._resolve(name, commit, file)

    def _list(self, name: str, revision: str) -> None:
        found = self._allowed(name, revision, listing=True)
        if found is None:
            return
        commit, files = found
        siblings = [self._sibling(file, content) for file, content in files.items()]
        body = json.dumps({"id": name, "modelId": name, "sha": commit, "siblings": siblings}).encode()
        self._send(200, body, {"content-type": "application/json"})

    def _sibling(self, file: str, content: bytes) -> dict[str, Any]:
        if self._double.faults.tells_no_sizes:
            return {"rfilename": file}
        lfs = {"sha256": _etag(file, content), "size": len(content), "pointerSize": 134}
        large = {"lfs": lfs} if file.endswith(LARGE) else {}
        size = self._double.faults.told_sizes.get(file, len(content))
        return {"rfilename": file, "size": size, "blobId": _git_digest(content), **large}

    def _resolve(self, name: str, revision: str, file: str) -> None:
        found = self._allowed(name, revision, listing=False)
        if found is None:
            return
        commit, files = found
        told = {"x-repo-commit": commit}
        if file not in files:
            self._send(404, b"Entry not found", {**told, "x-error-code": "EntryNotFound"})
            return
        content = files[file]
        etag = f'"{_etag(file, content)}"'
        if not file.endswith(LARGE):  # from a cache of its own
            self._send(307, b"", {**told, "location": f"{CACHE}{name}/{commit}/{file}"})
            return
        linked = {"x-linked-size": str(len(content)), "x-linked-etag": etag}
        place = f"{self._double.store}/{commit}/{name.replace('/', '--')}/{file}?signature=secret"
        self._send(302, b"", {**told, **linked, "location": place})

    def _allowed(self, name: str, revision: str, *, listing: bool) -> tuple[str, Files] | None:
        """The commit and its files, or None after the refusal was sent."""
        repository = self._double.repositories.get(name)
        token = (self.headers.get("authorization") or "").removeprefix("Bearer ")
        if token == "hf_wrong":
            self._send(401, b"", {"x-error-message": "Invalid credentials in Authorization header"})
        elif repository is not None and repository.tells_no_code and token != repository.asks_for:
            self._send(401, b"", {"x-error-message": "Invalid username or password."})
        elif repository is None:
            status = 404 if token else 401  # as the hub does: whoever is nobody learns nothing
            self._send(status, b"", {"x-error-code": "RepoNotFound", "x-error-message": "Repository not found"})
        elif repository.disabled:
            self._send(403, b"", {"x-error-message": "Access to this resource is disabled."})
        elif repository.gated and token != repository.asks_for and not listing:
            self._send(403 if token else 401, b"", {"x-error-code": "GatedRepo"})
        elif not repository.gated and repository.asks_for and not token:
            self._send(401, b"", {"x-error-code": "RepoNotFound"})
        elif not repository.gated and repository.asks_for and token != repository.asks_for:
            self._send(403, b"", {})
        elif (commit := repository.revisions.get(revision, revision)) not in repository.commits:
            self._send(404, b"", {"x-error-code": "RevisionNotFound", "x-error-message": "Invalid rev id"})
        else:
            return commit, repository.commits[commit]
        return None

    def _send_file(self, file: str, content: bytes, headers: dict[str, str]) -> None:
        faults = self._double.faults
        if file in faults.corrupt and self.command == "GET":
            faults.corrupt.remove(file)
            content = bytes([content[0] ^ 1]) + content[1:]
        content = faults.swapped.get(file, content)
        start, status, size = 0, 200, len(content)
        wanted = self.headers.get("range")
        if wanted and not faults.ignores_ranges:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= size:
                self._send(416, b"", {"content-range": f"bytes */{size}"})
                return
            status, headers = 206, {**headers, "content-range": f"bytes {start}-{size - 1}/{size}"}
        self._send(status, content[start:], {**headers, "accept-ranges": "bytes"}, file)

    def _send(self, status: int, body: bytes, headers: dict[str, str], file: str | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        faults = self._double.faults
        if file is None or not file.endswith(LARGE):
            self._write(file, body)
        elif faults.pause_after is not None:
            self._write(file, body[: faults.pause_after])
            self._double.paused.set()
            self._double.go_on.wait()
            self._write(file, body[faults.pause_after :])
        elif (cut := self._double.take(faults.cut_after)) is not None:
            self._write(file, body[:cut])
            self.close_connection = True
        else:
            self._write(file, body)

    def _write(self, file: str | None, body: bytes) -> None:
        for start in range(0, len(body), 1 << 16):
            part = body[start : start + (1 << 16)]
            self.wfile.write(part)
            self.wfile.flush()
            if file is not None:
                self._double.count(file, len(part))


def _etag(file: str, content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if file.endswith(LARGE) else _git_digest(content)


def _git_digest(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
