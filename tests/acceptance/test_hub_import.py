"""A model from a hub, through the whole product: what is shown, what a kill costs, and that nothing is left behind."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.server import MODELS, Server
from tests.integration.hub_double import HubDouble

TOKEN = "hf_a_token_that_nobody_may_see"
KJV = MODELS / "gpt2-kjv"
WEIGHTS = (KJV / "model.safetensors").stat().st_size
HALF = 4 << 20


@pytest.fixture
def hub() -> Iterator[HubDouble]:
    with HubDouble() as double:
        yield double


@pytest.fixture
def server(hub: HubDouble, bare_data_dir: Path, tmp_path: Path) -> Iterator[Server]:
    own = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "127.0.0.1"}
    with Server(bare_data_dir, **own) as running:
        yield running


def _begin(server: Server, repository: str = "org/kjv", **more: str) -> dict[str, Any]:
    wish = {"name": "kjv", "modelType": "openSource", "source": {"huggingFace": repository, **more}}
    return server.post("/models", wish)


def _left_behind(server: Server) -> list[str]:
    places = ("downloads", "scratch")
    return [path.name for place in places for path in (server.data_dir / place).glob("*")]


def test_a_model_of_the_hub_is_pinned_and_its_token_is_nowhere(server: Server, hub: HubDouble) -> None:
    commit = hub.add_folder("org/kjv", KJV, asks_for=TOKEN)
    accepted = _begin(server, revision="main")
    states = list(server.watch(accepted["dockStatusId"]))
    bars = [state["percentageComplete"] for state in states]
    assert states[-1]["status"] == "SUCCESS", states[-1]
    assert bars == sorted(bars)
    model = server.get(f"/models/{accepted['modelId']}")
    assert model["state"] == "Ready to Deploy"
    assert model["source"] == {"huggingFace": "org/kjv", "revision": "main", "commit": commit}
    assert model["sizeBytes"] == sum(path.stat().st_size for path in KJV.iterdir())
    assert _left_behind(server) == []
    server.stop()
    written = [path for path in server.data_dir.rglob("*") if path.is_file() and path.suffix != ".safetensors"]
    assert [path for path in written if TOKEN.encode() in path.read_bytes()] == []
    assert TOKEN not in server.log


def test_a_killed_server_goes_on_with_the_commit_and_the_bytes_it_has(server: Server, hub: HubDouble) -> None:
    commit = hub.add_folder("org/kjv", KJV)
    hub.faults.pause_after = HALF
    accepted = _begin(server)
    assert hub.paused.wait(60)
    partial = server.data_dir / "downloads" / accepted["modelId"] / "partial" / "model.safetensors"
    server.until(lambda: partial.exists() and partial.stat().st_size == HALF)
    server.kill()
    hub.faults.pause_after = None
    hub.add("org/kjv", {"README.md": b"the branch has moved on"})
    server.start()
    server.wait(accepted["dockStatusId"])
    assert server.get(f"/models/{accepted['modelId']}")["source"]["commit"] == commit
    assert hub.served["model.safetensors"] == WEIGHTS
    assert [asked.range for asked in hub.asked if asked.server == "store"] == [None, f"bytes={HALF}-"]
    assert _left_behind(server) == []


def test_a_cancelled_download_leaves_nothing(server: Server, hub: HubDouble) -> None:
    hub.add_folder("org/kjv", KJV)
    hub.faults.pause_after = HALF
    accepted = _begin(server)
    assert hub.paused.wait(60)
    server.post(f"/dock-status/{accepted['dockStatusId']}/cancel")
    ended = server.wait(accepted["dockStatusId"], expect="FAILED")
    assert ended["reason"] == "CANCELLED"
    server.until(lambda: _left_behind(server) == [])
    assert server.workers() == []


def test_a_refusal_says_what_to_do(server: Server, hub: HubDouble) -> None:
    hub.add_folder("org/kjv", KJV, asks_for="another", gated=True)
    accepted = _begin(server)
    ended = server.wait(accepted["dockStatusId"], expect="FAILED")
    assert ended["reason"] == "HUB_REPOSITORY_GATED"
    assert "HF_TOKEN" in ended["message"]
    assert TOKEN not in str(ended)
    model = server.get(f"/models/{accepted['modelId']}")
    assert (model["state"], model["reason"]) == ("Import Failed", "HUB_REPOSITORY_GATED")
    assert server.call("DELETE", f"/models/{accepted['modelId']}").status_code == 200
    server.until(lambda: _left_behind(server) == [])


def test_a_start_removes_what_no_import_goes_on_with(server: Server) -> None:
    server.stop()
    orphan = server.data_dir / "downloads" / "cm-1" / "partial"
    orphan.mkdir(parents=True)
    (orphan / "model.safetensors").write_bytes(b"x")
    server.start()
    assert _left_behind(server) == []
