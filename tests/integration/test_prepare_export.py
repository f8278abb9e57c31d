"""Export in a process of its own: what comes out is what was imported; however it ends, nothing half-made is seen."""

import asyncio
import hashlib
import json
import signal
from pathlib import Path

import pytest
from tests.integration.prepare_rig import GPT2_KJV, LARGE_BYTES, T5_DATE, Midway, Rig

from dockyard.domain.job import PHASES, Action
from dockyard.errors import Failed, Reason
from dockyard.prepare.manifest import FileEntry, Manifest, write_manifest
from dockyard.protocols.preparation import Progress


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "data")


@pytest.fixture
def large(rig: Rig) -> str:
    """The key of an artifact that takes long enough to pack to be caught in the middle. Its digest is wrong, too."""
    folder = rig.artifacts / ("a" * 64)
    folder.mkdir(parents=True)
    with (folder / "weights").open("wb") as file:
        file.truncate(LARGE_BYTES)
    entry = FileEntry(name="weights", size=LARGE_BYTES, sha256="", mtime_ns=0)
    write_manifest(folder, Manifest(key=folder.name, files=(entry,)))
    return folder.name


async def test_the_unpacked_archive_is_the_imported_folder(rig: Rig, tmp_path: Path) -> None:
    imported = await rig.import_model(GPT2_KJV)
    rig.told.clear()
    outcome, archive = await rig.export(imported.key)
    assert (outcome.key, outcome.size_bytes) == (imported.key, archive.stat().st_size)
    assert outcome.sha256 == hashlib.sha256(archive.read_bytes()).hexdigest()
    tar = await asyncio.create_subprocess_exec("tar", "-xf", archive, "-C", tmp_path)  # what a client has
    assert await tar.wait() == 0
    unpacked = {path.name: path for path in (tmp_path / "smol").iterdir()}
    assert json.loads(unpacked.pop("deployconfig.json").read_text()) == {"name": "smöl"}
    assert unpacked.keys() == {path.name for path in GPT2_KJV.iterdir()}
    for name, path in unpacked.items():
        assert path.read_bytes() == (GPT2_KJV / name).read_bytes()
    again = await rig.import_model(tmp_path / "smol")
    assert (again.key, again.reused) == (imported.key, True)


async def test_progress_is_one_of_an_export(rig: Rig) -> None:
    imported = await rig.import_model(T5_DATE)
    rig.told.clear()
    await rig.export(imported.key)
    assert {line.phase for line in rig.told} <= {str(phase) for phase, _ in PHASES[Action.EXPORT]}
    assert rig.told[-1].share == 1.0
    assert rig.in_scratch == []


async def test_a_damaged_artifact_is_not_exported(rig: Rig) -> None:
    imported = await rig.import_model(T5_DATE)
    weights = Path(rig.preparer.artifact_dir(imported.key)) / "model.safetensors"
    weights.chmod(0o644)
    with weights.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    with pytest.raises(Failed, match=r"model\.safetensors") as caught:
        await rig.export(imported.key)
    assert caught.value.reason is Reason.ARTIFACT_CORRUPT
    assert not rig.exports.exists()
    assert rig.in_scratch == []


async def test_cancelling_leaves_nothing(rig: Rig, large: str) -> None:
    midway = Midway()
    running = asyncio.create_task(rig.export(large, midway))
    await midway.reached.wait()
    (child,) = rig.children()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not child.is_running()
    assert not rig.exports.exists()
    assert rig.in_scratch == []


async def test_killed_midway_leaves_nothing_and_the_next_one_succeeds(rig: Rig, large: str) -> None:
    async def kill(progress: Progress) -> None:
        for child in rig.children():
            child.send_signal(signal.SIGKILL)

    with pytest.raises(Failed) as caught:
        await rig.export(large, kill)
    assert caught.value.reason is Reason.OUT_OF_MEMORY
    assert not rig.exports.exists()
    assert rig.in_scratch == []
    imported = await rig.import_model(T5_DATE)
    outcome, archive = await rig.export(imported.key)
    assert outcome.size_bytes == archive.stat().st_size
