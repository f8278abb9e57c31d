"""A model out of one server and into the next: exported, fetched by its link, imported again, deployed as it was."""

import hashlib
import json
import os
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from tests.acceptance.server import DOCKYARD, MODELS, Server, body

MODEL = MODELS / "gpt2-kjv"
PROMPT = "In the beginning"


def fetch_in_two_parts(url: str, size: int) -> bytes:
    """As `curl -r` and `curl -C -` do, without a key."""
    first = httpx.get(url, headers={"range": "bytes=0-999999"})
    rest = httpx.get(url, headers={"range": "bytes=1000000-", "if-range": first.headers["etag"]})
    assert (first.status_code, rest.status_code) == (206, 206)
    assert rest.headers["content-range"] == f"bytes 1000000-{size - 1}/{size}"
    return first.content + rest.content


def by_command(server: Server, *arguments: str) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DOCKYARD_")}
    subprocess.run(
        [DOCKYARD, *arguments],
        env={**environment, "DOCKYARD_URL": server.url, "DOCKYARD_API_KEY": server.key},
        check=True,
    )


def test_an_export_comes_back_as_it_was(own_data_dir: Path, tmp_path: Path) -> None:
    with Server(own_data_dir) as server:
        model_id = server.import_model("gpt2-kjv", "fineTune")
        server.deploy(model_id, body("verses", "ctranslate2", maxBatchSize=3), "fineTune")
        before = server.complete("verses", PROMPT, temperature=0, max_tokens=16)

        response = server.wait(server.post(f"/models/{model_id}/export")["dockStatusId"])["response"]
        assert response["downloadUrl"].startswith(f"{server.url}/api/public/downloads/ds-")
        archive = fetch_in_two_parts(response["downloadUrl"], response["sizeBytes"])
        assert hashlib.sha256(archive).hexdigest() == response["sha256"]
        (tmp_path / "out.tar").write_bytes(archive)
        subprocess.run(["tar", "-xf", "out.tar"], cwd=tmp_path, check=True)
        unpacked = tmp_path / "gpt2-kjv"
        for path in MODEL.iterdir():
            assert (unpacked / path.name).read_bytes() == path.read_bytes()

        by_command(server, "models", "export", model_id, "--output", str(tmp_path / "again.tar"))
        assert (tmp_path / "again.tar").read_bytes() == archive

        stored = set(os.listdir(own_data_dir / "artifacts"))
        wish = {"name": "back", "modelType": "fineTune", "source": {"path": str(unpacked)}}
        again = server.call("POST", "/models", json=wish).json()
        server.wait(again["dockStatusId"])
        assert set(os.listdir(own_data_dir / "artifacts")) == stored  # the same files: nothing was stored anew

        server.wait(server.post(f"/models/{model_id}/undeploy")["dockStatusId"])
        config = json.loads((unpacked / "deployconfig.json").read_text())
        assert server.get(f"/models/{again['modelId']}")["deployConfig"] == config
        by_command(server, "deploy", "back", "--from-export", "--wait")
        assert server.complete("verses", PROMPT, temperature=0, max_tokens=16) == before

        server.stop()
        assert (own_data_dir / "signing-key").stat().st_mode & 0o777 == 0o600
        server.start()
        url = urlsplit(response["downloadUrl"])
        assert httpx.head(f"{server.url}{url.path}?{url.query}").status_code == 200
