"""A model sent in chunks: in any order, several at once, across a killed server; by calls and by the command."""

import hashlib
import io
import os
import subprocess
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.acceptance.server import DOCKYARD, MODELS, Server

MODEL = MODELS / "gpt2-kjv"
CHUNK = 700_000


def as_tar() -> bytes:
    """In a folder of its own, as `tar -cf` makes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(MODEL, "gpt2-kjv")
    return out.getvalue()


def as_zip() -> bytes:
    """The files side by side."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(MODEL.iterdir()):
            archive.write(path, path.name)
    return out.getvalue()


def start(server: Server, archive: bytes, extension: str) -> tuple[dict[str, Any], list[bytes]]:
    chunks = [archive[at : at + CHUNK] for at in range(0, len(archive), CHUNK)]
    wish = {
        "fileContext": "model",
        "totalChunks": len(chunks),
        "fileExtension": extension,
        "fileName": f"gpt2-kjv.{extension}",
        "fileSize": len(archive),
    }
    return server.post("/files/session/start", wish), chunks


def send(server: Server, session_id: str, number: int, chunk: bytes) -> None:
    reply = server.call(
        "POST", f"/files/session/{session_id}", files={"file": chunk}, data={"chunkNumber": str(number)}
    )
    assert reply.status_code == 200, reply.text
    assert reply.json() == {"chunkNumber": str(number), "sessionId": session_id}


def test_chunks_survive_a_killed_server_and_become_a_model(bare_data_dir: Path) -> None:
    with Server(bare_data_dir) as server:
        archive = as_tar()
        session, chunks = start(server, archive, "tar")
        session_id = session["sessionId"]
        numbers = list(reversed(range(len(chunks))))
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: send(server, session_id, number, chunks[number]), numbers[:-2]))
        server.kill()
        server.start()

        missing = server.call("POST", f"/files/session/{session_id}/complete")
        assert missing.status_code == 409
        assert "2 of " in missing.text
        for number in (0, 1):
            send(server, session_id, number, chunks[number])
        digest = hashlib.sha256(archive).hexdigest()
        accepted = server.post(f"/files/session/{session_id}/complete", {"fileSha256": digest})
        assert accepted["modelId"] == session["modelId"]
        server.wait(accepted["dockStatusId"])
        model = server.get(f"/models/{session['modelId']}")
        assert (model["state"], model["name"], model["modelType"]) == ("Ready to Deploy", "gpt2-kjv", "openSource")
        [key] = os.listdir(bare_data_dir / "artifacts")
        for path in MODEL.glob("*.safetensors"):
            assert (bare_data_dir / "artifacts" / key / path.name).read_bytes() == path.read_bytes()

        session, chunks = start(server, as_zip(), "zip")
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: send(server, session["sessionId"], n, chunks[n]), range(len(chunks))))
        accepted = server.post(f"/files/session/{session['sessionId']}/complete")
        server.kill()  # the import goes on from the chunks
        server.start()
        server.wait(accepted["dockStatusId"])
        assert os.listdir(bare_data_dir / "artifacts") == [key]  # the same files, whatever they came in

        server.stop()
        assert os.listdir(bare_data_dir / "uploads") == []
        assert os.listdir(bare_data_dir / "scratch") == []


def test_a_hostile_archive_ends_with_its_reason_and_leaves_nothing(bare_data_dir: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        evil = tarfile.TarInfo("../../evil.json")
        evil.size = 2
        tar.addfile(evil, io.BytesIO(b"{}"))
    with Server(bare_data_dir) as server:
        session, [chunk] = start(server, out.getvalue(), "tar")
        send(server, session["sessionId"], 0, chunk)
        accepted = server.post(f"/files/session/{session['sessionId']}/complete")
        job = server.wait(accepted["dockStatusId"], "FAILED")
        assert job["reason"] == "ARCHIVE_PATH_REFUSED"
        assert server.get(f"/models/{session['modelId']}")["state"] == "Import Failed"
        server.stop()
        assert not list(bare_data_dir.parent.rglob("evil.json"))
        assert [os.listdir(bare_data_dir / name) for name in ("uploads", "scratch", "artifacts")] == [[], [], []]


def test_the_command_sends_an_archive(bare_data_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "verses.tar"
    file.write_bytes(as_tar())
    with Server(bare_data_dir) as server:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("DOCKYARD_")}
        state = tmp_path / "state"
        environment = {**kept, "DOCKYARD_URL": server.url, "DOCKYARD_API_KEY": server.key, "XDG_STATE_HOME": str(state)}
        subprocess.run([DOCKYARD, "models", "import", str(file), "--type", "fineTune"], env=environment, check=True)
        [model] = server.get("/models")["models"]
        assert (model["name"], model["modelType"], model["state"]) == ("verses", "fineTune", "Ready to Deploy")
        assert list(state.rglob("*.json")) == []
