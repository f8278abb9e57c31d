"""An upload by the command line: which chunks are sent, and how it goes on after an end in the middle."""

import hashlib
import io
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from dockyard.cli import upload as upload_module
from dockyard.cli.command import Session
from dockyard.cli.failures import ApiRefused, BadUsage, CommandFailed, Problem, Unreachable
from dockyard.cli.output import Output
from dockyard.cli.upload import forget_upload, is_archive, upload

CONTENT = bytes(range(100))
WISH = {"name": "m", "modelType": "openSource"}


class FakeServer:
    """The client's methods over a dict of chunks; `fail_at` maps a chunk's number to what sending it raises."""

    url = "http://dockyard"

    def __init__(self) -> None:
        self.sessions: dict[str, dict[int, bytes]] = {}
        self.sent: list[int] = []
        self.fail_at: dict[int, list[BaseException]] = {}
        self.started: list[dict[str, Any]] = []
        self.completed: dict[str, Any] = {}
        self.job = "IN_PROGRESS"
        self._lock = threading.Lock()

    def get(self, *path: str) -> dict[str, Any]:
        if path[0] == "dock-status":
            return {"status": self.job}
        session_id = path[-1]
        if session_id not in self.sessions:
            raise ApiRefused(404, (Problem("there is no upload", "NOT_FOUND"),))
        return {
            "sessionId": session_id,
            "totalChunks": self.started[-1]["totalChunks"],
            "receivedChunks": sorted(self.sessions[session_id]),
            "dockStatusId": "ds-1" if session_id in self.completed else None,
        }

    def call(self, method: str, *path: str, body: Any = None) -> dict[str, Any]:
        if path[-1] == "start":
            self.started.append(body)
            session_id = f"up-{len(self.started)}"
            self.sessions[session_id] = {}
            return {"sessionId": session_id, "modelId": "cm-1", "expirationDate": ""}
        self.completed[path[-2]] = body
        return {"dockStatusId": "ds-1", "modelId": "cm-1"}

    def send_chunk(self, session_id: str, number: int, content: bytes, sha256: str) -> dict[str, Any]:
        assert sha256 == hashlib.sha256(content).hexdigest()
        with self._lock:
            self.sent.append(number)
            failures = self.fail_at.get(number)
            if failures:
                raise failures.pop(0)
            self.sessions[session_id][number] = content
        return {"chunkNumber": str(number), "sessionId": session_id}


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def session(server: FakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Session:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(upload_module, "LONGEST_S", 0.001)
    session = Session("http://dockyard", "key", False)
    session.out = Output(False, io.StringIO(), io.StringIO())
    session._client = cast(Any, server)
    return session


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "m.tar"
    path.write_bytes(CONTENT)
    return path


def notes(session: Session) -> str:
    return cast(io.StringIO, session.out.err).getvalue()


def test_all_chunks_arrive_and_the_whole_is_named(server: FakeServer, session: Session, archive: Path) -> None:
    assert upload(session, archive, WISH, 7)["dockStatusId"] == "ds-1"
    assert b"".join(server.sessions["up-1"][n] for n in range(15)) == CONTENT
    assert server.completed["up-1"] == {"fileSha256": hashlib.sha256(CONTENT).hexdigest()}
    assert server.started == [
        {
            **WISH,
            "fileContext": "model",
            "totalChunks": 15,
            "fileExtension": "tar",
            "fileName": "m.tar",
            "fileSize": 100,
        }
    ]


def test_an_interrupted_upload_goes_on_with_what_is_missing(
    server: FakeServer, session: Session, archive: Path
) -> None:
    server.fail_at[9] = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        upload(session, archive, WISH, 7)
    assert "the same command goes on" in notes(session)
    there, server.sent = set(server.sessions["up-1"]), []
    upload(session, archive, WISH, 7)
    assert set(server.sent) == set(range(15)) - there
    assert list(server.completed) == ["up-1"]
    assert f"{len(there)} of 15 chunks are there" in notes(session)
    assert server.completed["up-1"] == {"fileSha256": hashlib.sha256(CONTENT).hexdigest()}


def test_an_expired_session_starts_anew(server: FakeServer, session: Session, archive: Path) -> None:
    server.fail_at[3] = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        upload(session, archive, WISH, 7)
    del server.sessions["up-1"]
    upload(session, archive, WISH, 7)
    assert list(server.completed) == ["up-2"]


def test_another_file_or_another_wish_is_another_upload(server: FakeServer, session: Session, archive: Path) -> None:
    for change in (lambda: archive.write_bytes(CONTENT + b"x"), lambda: None):
        server.fail_at[3] = [KeyboardInterrupt()]
        with pytest.raises(KeyboardInterrupt):
            upload(session, archive, WISH, 7)
        change()
    upload(session, archive, {**WISH, "name": "n"}, 7)
    assert len(server.started) == 3


def test_a_completed_upload_whose_answer_was_lost_is_asked_for_again(
    server: FakeServer, session: Session, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = server.call

    def lost(method: str, *path: str, body: Any = None) -> dict[str, Any]:
        reply = call(method, *path, body=body)
        if path[-1] == "complete":
            raise Unreachable("http://dockyard", "gone")
        return reply

    with monkeypatch.context() as patch:
        patch.setattr(server, "call", lost)
        with pytest.raises(Unreachable):
            upload(session, archive, WISH, 7)
    server.sent = []
    assert upload(session, archive, WISH, 7)["dockStatusId"] == "ds-1"
    assert server.sent == []
    upload(session, archive, WISH, 7)  # it is still being imported
    assert len(server.started) == 1
    server.job = "SUCCESS"
    upload(session, archive, WISH, 7)  # that one was done; a new import begins
    assert len(server.started) == 2


def test_an_import_that_found_the_disk_full_goes_on_with_the_chunks_that_were_kept(
    server: FakeServer, session: Session, archive: Path
) -> None:
    upload(session, archive, WISH, 7)
    server.completed.clear()  # as the server does when it reopens the upload
    server.sent = []
    upload(session, archive, WISH, 7)
    assert (server.sent, list(server.completed)) == ([], ["up-1"])
    forget_upload(session, archive, WISH)
    upload(session, archive, WISH, 7)
    assert len(server.started) == 2


def test_a_server_that_is_away_for_a_while_is_waited_for(server: FakeServer, session: Session, archive: Path) -> None:
    busy = ApiRefused(503, (Problem("busy", "DATABASE_UNAVAILABLE"),))
    server.fail_at[2] = [Unreachable("http://dockyard", "away"), busy]
    upload(session, archive, WISH, 7)
    assert server.sent.count(2) == 3


def test_a_full_disk_ends_the_command_and_keeps_its_place(server: FakeServer, session: Session, archive: Path) -> None:
    server.fail_at[0] = [ApiRefused(503, (Problem("the disk is full", "DISK_FULL"),))]
    with pytest.raises(ApiRefused, match="disk is full"):
        upload(session, archive, WISH, 7)
    upload(session, archive, WISH, 7)
    assert list(server.completed) == ["up-1"]


def test_what_is_no_file_is_told(session: Session, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="No such file"):
        upload(session, tmp_path / "absent.tar", WISH)
    (tmp_path / "empty.tar").touch()
    with pytest.raises(CommandFailed, match="empty"):
        upload(session, tmp_path / "empty.tar", WISH)


def test_which_paths_are_uploads(tmp_path: Path) -> None:
    assert is_archive(Path("m.tar"))
    assert is_archive(Path("m.ZIP"))
    assert not is_archive(Path("model"))
    assert not is_archive(Path("m.gguf"))
    (tmp_path / "folder.tar").mkdir()
    assert not is_archive(tmp_path / "folder.tar")
    with pytest.raises(BadUsage, match="plain tar"):
        is_archive(Path("m.tar.gz"))
