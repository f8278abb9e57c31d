"""A repository of a hub comes in: only what makes up a model, of one commit, refused before its weights are fetched."""

import asyncio
import hashlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.hub_double import HubDouble
from tests.integration.hub_rig import HubRig
from tests.integration.prepare_rig import GPT2_KJV, T5_DATE, Rig

from dockyard.errors import Failed, Reason
from dockyard.prepare.runner import ProcessPreparer
from dockyard.protocols.preparation import HubSource, ImportTask, Outcome, PathSource

MIB = 1 << 20
WEIGHTS = hashlib.shake_256(b"weights").digest(3 * MIB)  # nothing that fetches looks into them
SMALL = {path.name: path.read_bytes() for path in GPT2_KJV.iterdir() if path.name != "model.safetensors"}
TOKEN = "hf_a_token_that_nobody_may_see"


@pytest.fixture(scope="module")
def serving() -> Iterator[HubDouble]:
    with HubDouble() as hub:
        yield hub


@pytest.fixture
def hub(serving: HubDouble) -> HubDouble:
    serving.forget()
    return serving


@pytest.fixture
def rig(hub: HubDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubRig:
    return HubRig(hub, tmp_path / "download", monkeypatch)


def _config(**fields: object) -> bytes:
    return json.dumps({**json.loads(SMALL["config.json"]), **fields}).encode()


def test_only_the_files_of_a_model_are_fetched(rig: HubRig) -> None:
    beside = {"pytorch_model.bin": b"pickled", "flax_model.msgpack": b"x", "onnx/model.onnx": b"x", "a.png": b"x"}
    commit = rig.hub.add("org/kjv", {**SMALL, "model.safetensors": WEIGHTS, "README.md": b"# kjv", **beside})
    model, found = rig.fetch()
    assert found == commit
    names = {*SMALL, "model.safetensors", "README.md"}
    assert {path.name for path in model.iterdir()} == names == rig.hub.fetched()
    assert (model / "model.safetensors").read_bytes() == WEIGHTS


def test_progress_is_in_bytes_and_never_falls(rig: HubRig) -> None:
    rig.hub.add("org/kjv", {**SMALL, "model.safetensors": WEIGHTS})
    rig.hub.faults.cut_after = [MIB]
    rig.fetch()
    shares = [progress.share for progress in rig.told]
    assert shares == sorted(shares)
    assert shares[-1] == 0.9
    assert rig.told[-1].message == "downloading: 3.3 of 3.3 MB"
    assert any("trying again in" in progress.message for progress in rig.told)


def test_shards_are_fetched_by_their_index(rig: HubRig) -> None:
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    files = {
        "model.safetensors.index.json": json.dumps(index).encode(),
        "model-00001-of-00001.safetensors": WEIGHTS,
        "model-00001-of-00009.safetensors": WEIGHTS,
    }
    rig.hub.add("org/kjv", {**SMALL, **files})
    rig.fetch()
    assert rig.hub.fetched() == {*SMALL, "model.safetensors.index.json", "model-00001-of-00001.safetensors"}


@pytest.mark.parametrize(
    ("files", "reason", "told"),
    [
        ({"pytorch_model.bin": b"pickled"}, Reason.PICKLE_REFUSED, "pytorch_model.bin"),
        ({"model.safetensors": WEIGHTS, "modeling_x.py": b"print()"}, Reason.CODE_REFUSED, "modeling_x.py"),
        ({"model.safetensors": WEIGHTS, "config.json": _config(auto_map={})}, Reason.AUTO_MAP_REFUSED, "auto_map"),
        (
            {"model.safetensors": WEIGHTS, "config.json": _config(architectures=["NewForCausalLM"])},
            Reason.ARCHITECTURE_UNKNOWN,
            "NewForCausalLM",
        ),
        ({"model.safetensors": WEIGHTS, "tokenizer.json": b"{}"}, Reason.TOKENIZER_UNREADABLE, "tokenizer.json"),
        ({}, Reason.WEIGHTS_MISSING, "model.safetensors"),
        ({"adapter_config.json": b"{}", "adapter_model.bin": b"x"}, Reason.PICKLE_REFUSED, "adapter_model.bin"),
        ({"adapter_config.json": b"{}", "tune.py": b"x"}, Reason.CODE_REFUSED, "tune.py"),
    ],
)
def test_what_cannot_run_is_refused_before_its_weights_are_fetched(
    rig: HubRig, files: dict[str, bytes], reason: Reason, told: str
) -> None:
    rig.hub.add("org/kjv", {**SMALL, **files})
    with pytest.raises(Failed) as refusal:
        rig.fetch()
    assert refusal.value.reason is reason
    assert "org/kjv" in refusal.value.message
    assert told in refusal.value.message
    assert rig.hub.fetched() <= set(SMALL)


def test_a_config_of_gigabytes_is_not_fetched(rig: HubRig) -> None:
    rig.hub.add("org/kjv", {**SMALL, "model.safetensors": WEIGHTS})
    rig.hub.faults.told_sizes = {"config.json": 5 << 30}
    with pytest.raises(Failed, match=r"config\.json is larger") as refusal:
        rig.fetch()
    assert refusal.value.reason is Reason.SOURCE_NOT_SUPPORTED
    assert rig.hub.fetched() == set()


def test_a_repository_that_is_no_model_at_all(rig: HubRig) -> None:
    rig.hub.add("org/kjv", {"README.md": b"# data", "data.parquet": b"x"})
    with pytest.raises(Failed) as refusal:
        rig.fetch()
    assert refusal.value.reason is Reason.CONFIG_MISSING


def test_the_only_gguf_file_or_the_one_that_is_named(rig: HubRig) -> None:
    rig.hub.add("org/one", {"m-q4.gguf": b"GGUF one", "config.json": b"{}"})
    model, _ = rig.fetch("org/one")
    assert model.name == "m-q4.gguf"
    assert model.read_bytes() == b"GGUF one"
    rig.hub.add("org/two", {"m-q4.gguf": b"GGUF four", "m-q8.gguf": b"GGUF eight"})
    with pytest.raises(Failed, match=r"2 GGUF files.*m-q4\.gguf, m-q8\.gguf") as refusal:
        rig.fetch("org/two")
    assert refusal.value.reason is Reason.SOURCE_NOT_SUPPORTED
    with pytest.raises(Failed, match=r"no GGUF file other\.gguf") as refusal:
        rig.fetch("org/two", file="other.gguf")
    assert refusal.value.reason is Reason.HUB_FILE_NOT_FOUND
    model, _ = rig.fetch("org/two", file="m-q8.gguf")
    assert model.read_bytes() == b"GGUF eight"


def test_an_adapter_is_its_two_files_and_what_describes_it(rig: HubRig) -> None:
    own = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"x" * 100, "README.md": b"# tuned"}
    rig.hub.add("org/tuned", {**own, "optimizer.pt": b"x", "training_args.bin": b"x"})
    model, _ = rig.fetch("org/tuned")
    assert {path.name for path in model.iterdir()} == set(own)


def test_a_branch_a_tag_and_a_commit(rig: HubRig) -> None:
    first = rig.hub.add("org/kjv", {**SMALL, "model.safetensors": WEIGHTS}, revision="refs/pr/1")
    rig.hub.add("org/kjv", {**SMALL, "model.safetensors": WEIGHTS[::-1]})
    for revision in ("refs/pr/1", first):
        model, found = rig.fetch(revision=revision)
        assert found == first
        assert (model / "model.safetensors").read_bytes() == WEIGHTS


def test_what_goes_on_is_the_commit_that_it_began_with(rig: HubRig) -> None:
    """The branch moves on while the server is away: half of the one model and half of the other would run, too."""
    first = rig.hub.add("org/kjv", {**SMALL, "model.safetensors": WEIGHTS})
    rig.hub.faults.cut_after = [2 * MIB, 0, 0, 0, 0]
    with pytest.raises(Failed):
        rig.fetch()
    rig.hub.add("org/kjv", {**SMALL, "model.safetensors": WEIGHTS[::-1]})
    rig.hub.faults.cut_after.clear()
    model, found = rig.fetch()
    assert found == first
    assert (model / "model.safetensors").read_bytes() == WEIGHTS
    assert rig.hub.served["model.safetensors"] == len(WEIGHTS)


def test_a_commit_that_is_gone_from_the_hub_begins_anew(rig: HubRig) -> None:
    first = rig.hub.add("org/kjv", {**SMALL, "model.safetensors": WEIGHTS})
    rig.hub.faults.cut_after = [2 * MIB, 0, 0, 0, 0]
    with pytest.raises(Failed):
        rig.fetch()
    second = rig.hub.add("org/kjv", {**SMALL, "model.safetensors": WEIGHTS[::-1]})
    del rig.hub.repositories["org/kjv"].commits[first]
    rig.hub.faults.cut_after.clear()
    model, found = rig.fetch()
    assert found == second
    assert (model / "model.safetensors").read_bytes() == WEIGHTS[::-1]


def test_a_hub_whose_listing_tells_no_sizes(rig: HubRig) -> None:
    rig.hub.add("org/kjv", {**SMALL, "model.safetensors": WEIGHTS})
    rig.hub.faults.tells_no_sizes = True
    rig.hub.faults.corrupt = ["model.safetensors"]  # each file's own reply tells the digest
    model, _ = rig.fetch()
    assert (model / "model.safetensors").read_bytes() == WEIGHTS
    assert [asked.path for asked in rig.hub.asked if asked.method == "HEAD"]


def test_the_token_goes_to_the_hub_and_nowhere_else(rig: HubRig) -> None:
    rig.hub.add("org/kjv", {**SMALL, "model.safetensors": WEIGHTS}, asks_for=TOKEN)
    rig.log_in(TOKEN)
    rig.fetch()
    tokens = {server: {asked.token for asked in rig.hub.asked if asked.server == server} for server in ("hub", "store")}
    assert tokens == {"hub": {f"Bearer {TOKEN}"}, "store": {None}}


def test_a_disk_without_room_is_told_before_the_weights(rig: HubRig, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")(1 << 40, 0, 1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    rig.hub.add("org/kjv", {**SMALL, "model.safetensors": WEIGHTS})
    with pytest.raises(Failed) as refusal:
        rig.fetch()
    assert refusal.value.reason is Reason.DISK_FULL
    assert rig.hub.fetched() == set(SMALL)


class _Process:
    """The same through the prepare process, with an environment as the server hands it down."""

    def __init__(self, hub: HubDouble, data_dir: Path) -> None:
        self.hub = hub
        self.rig = Rig(data_dir)
        self.folder = data_dir / "downloads" / "cm-1"

    async def run(self, repository: str = "org/kjv") -> Outcome:
        source = HubSource(repository=repository, revision=None, folder=str(self.folder))
        return await self.rig.preparer.run(ImportTask(source=source, artifacts_dir="", scratch_dir=""), self.rig.listen)


@pytest.fixture
def process(hub: HubDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Process:
    for name, value in {
        "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path), "HF_TOKEN": TOKEN, "NO_PROXY": "127.0.0.1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return _Process(hub, tmp_path / "data")


async def test_the_model_is_that_of_the_folder(process: _Process) -> None:
    """The same artifact as from a folder, so that both are stored once."""
    commit = process.hub.add_folder("org/kjv", GPT2_KJV)
    outcome = await process.run()
    assert outcome.found == {"commit": commit}
    assert (await process.rig.import_model(GPT2_KJV)).reused
    shares = [(progress.phase, progress.share) for progress in process.rig.told]
    assert [phase for phase, _ in dict.fromkeys(shares)].index("VALIDATING") > 0
    assert process.rig.in_scratch == []


async def test_a_killed_process_goes_on_where_it_was(process: _Process) -> None:
    process.hub.add_folder("org/kjv", GPT2_KJV)
    process.hub.faults.pause_after = 5 * MIB
    running = asyncio.create_task(process.run())
    assert await asyncio.to_thread(process.hub.paused.wait, 60)
    await asyncio.to_thread(_has_grown, process.folder / "partial" / "model.safetensors", 5 * MIB)
    process.hub.faults.pause_after = None
    (child,) = process.rig.children()
    os.kill(child.pid, signal.SIGKILL)
    outcome = await running
    process.hub.go_on.set()
    stored = process.rig.artifacts / outcome.key / "model.safetensors"
    assert stored.read_bytes() == (GPT2_KJV / "model.safetensors").read_bytes()
    ranges = [asked.range for asked in process.hub.asked if asked.server == "store"]
    assert ranges == [None, f"bytes={5 * MIB}-"]


@pytest.mark.parametrize(("of_hub", "lives"), [(True, 3), (False, 1)])
async def test_a_process_that_dies_each_time_ends_with_its_reason(tmp_path: Path, of_hub: bool, lives: int) -> None:
    script = tmp_path / "dies"
    script.write_text(f"#!/bin/sh\necho born >> {tmp_path}/lives\nkill -9 $$\n")
    script.chmod(0o755)
    preparer = ProcessPreparer(tmp_path / "artifacts", tmp_path / "scratch", python=str(script))
    hub = HubSource(repository="org/kjv", revision=None, folder=str(tmp_path / "download"))
    task = ImportTask(source=hub if of_hub else PathSource(path="/"), artifacts_dir="", scratch_dir="")
    with pytest.raises(Failed) as failure:
        await preparer.run(task, Rig(tmp_path).listen)
    assert failure.value.reason is Reason.OUT_OF_MEMORY
    assert (tmp_path / "lives").read_text().count("born") == lives


async def test_what_is_said_of_a_failure_holds_no_token(process: _Process) -> None:
    process.hub.add_folder("org/kjv", T5_DATE, asks_for="another")
    with pytest.raises(Failed) as refusal:
        await process.run()
    assert refusal.value.reason is Reason.HUB_ACCESS_REFUSED
    assert TOKEN not in "".join([refusal.value.message, *refusal.value.log_tail])
    told = [progress.message for progress in process.rig.told]
    assert TOKEN not in "".join(told)


def _has_grown(path: Path, size: int) -> None:
    """Until the client has written what the hub has sent. No event tells it: it is another process."""
    import time

    deadline = time.monotonic() + 60
    while not path.exists() or path.stat().st_size < size:
        assert time.monotonic() < deadline
        time.sleep(0.01)
