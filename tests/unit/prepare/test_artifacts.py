"""Publishing: complete or absent; the first one stays, a damaged one gives way; a dead process's scratch is removed."""

from pathlib import Path

import pytest

from dockyard.errors import Failed, Reason
from dockyard.prepare.artifacts import Artifacts, ScratchLock, check_room, clean_scratch
from dockyard.prepare.files import write_file
from dockyard.prepare.manifest import Manifest, write_manifest

KEY = "a" * 64


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "artifacts")


def _built(folder: Path, content: bytes = b"weights") -> Manifest:
    folder.mkdir(parents=True)
    manifest = Manifest(key=KEY, files=(write_file(folder, "w", content),))
    write_manifest(folder, manifest)
    return manifest


def test_publishing_moves_the_folder(artifacts: Artifacts, tmp_path: Path) -> None:
    manifest = _built(tmp_path / "scratch" / "new")
    assert not artifacts.publish(tmp_path / "scratch" / "new", manifest)
    assert artifacts.find_intact(KEY) == manifest
    assert not (tmp_path / "scratch" / "new").exists()


def test_an_intact_artifact_stays(artifacts: Artifacts, tmp_path: Path) -> None:
    first = _built(tmp_path / "scratch" / "first")
    artifacts.publish(tmp_path / "scratch" / "first", first)
    assert artifacts.publish(tmp_path / "scratch" / "second", _built(tmp_path / "scratch" / "second"))
    assert artifacts.find_intact(KEY) == first


def test_a_damaged_artifact_gives_way(artifacts: Artifacts, tmp_path: Path) -> None:
    artifacts.publish(tmp_path / "scratch" / "first", _built(tmp_path / "scratch" / "first"))
    (artifacts.folder(KEY) / "w").unlink()
    assert artifacts.find_intact(KEY) is None
    assert not artifacts.publish(tmp_path / "scratch" / "second", _built(tmp_path / "scratch" / "second"))
    assert (artifacts.folder(KEY) / "w").read_bytes() == b"weights"


def test_what_is_buried_is_gone_in_one_step_and_once(artifacts: Artifacts, tmp_path: Path) -> None:
    artifacts.publish(tmp_path / "scratch" / "first", _built(tmp_path / "scratch" / "first"))
    stored = artifacts.stored()
    buried = artifacts.bury(KEY, tmp_path / "scratch")
    assert buried is not None
    assert {KEY: buried[1]} == stored
    assert buried[1] > len(b"weights")
    assert not artifacts.has(KEY)
    assert artifacts.bury(KEY, tmp_path / "scratch") is None
    assert list((tmp_path / "scratch").iterdir()) == [buried[0]]


def test_scratch_in_use_stays_and_the_rest_goes(tmp_path: Path) -> None:
    (tmp_path / "dead").mkdir()
    (tmp_path / "alive").mkdir()
    lock = ScratchLock(tmp_path / "alive")
    assert clean_scratch(tmp_path) == ["dead"]
    lock.release()
    assert clean_scratch(tmp_path) == ["alive"]
    assert clean_scratch(tmp_path / "never made") == []


def test_too_little_room_is_told_before_a_byte_is_written(tmp_path: Path) -> None:
    check_room(tmp_path, 1)
    with pytest.raises(Failed, match="free some space") as caught:
        check_room(tmp_path, 1 << 60)
    assert caught.value.reason is Reason.DISK_FULL
