"""The archive of an export: the same bytes whenever the same things go in, and nothing that is damaged."""

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections import namedtuple
from pathlib import Path

import pytest

from dockyard.errors import Failed, Reason
from dockyard.prepare.export_task import run_export
from dockyard.prepare.files import write_file
from dockyard.prepare.manifest import Manifest, imported_key, write_manifest
from dockyard.prepare.reporting import Reporter, decode_line
from dockyard.protocols.preparation import ExportTask, Outcome

FILES = {"tokenizer.json": b"{}", "config.json": b"{...}", "LICENSE": b"", "weights": bytes(range(256)) * 9000}
CONFIG = {"name": "smöl", "hyperParameters": {"stopSequence": ["\n"]}}
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def artifact(data_dir: Path) -> Path:
    """An imported artifact's folder."""
    built = data_dir / "built"
    built.mkdir(parents=True)
    files = tuple(write_file(built, name, content) for name, content in sorted(FILES.items()))
    manifest = Manifest(key=imported_key(files), files=files)
    write_manifest(built, manifest)
    (data_dir / "artifacts").mkdir()
    return built.rename(data_dir / "artifacts" / manifest.key)


def export(folder: Path, name: str = "ds-1", out: io.BytesIO | None = None) -> tuple[Outcome, Path]:
    data_dir = folder.parent.parent
    scratch = data_dir / "scratch" / name
    scratch.mkdir(parents=True)
    archive = data_dir / "exports" / f"{name}.tar"
    task = ExportTask(
        source_key=folder.name,
        folder="smol",
        deploy_config=CONFIG,
        archive=str(archive),
        artifacts_dir=str(folder.parent),
        scratch_dir=str(scratch),
    )
    return run_export(task, Reporter(out or io.BytesIO())), archive


def test_the_archive_holds_the_files_and_the_config(data_dir: Path) -> None:
    outcome, archive = export(artifact(data_dir))
    with tarfile.open(archive) as tar:
        members = tar.getmembers()
        unpacked = {member.name: tar.extractfile(member) for member in members}
        content = {name: file.read() for name, file in unpacked.items() if file}
    assert [member.name for member in members] == sorted(f"smol/{name}" for name in (*FILES, "deployconfig.json"))
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode, m.type) for m in members} == {
        (315532800, 0, 0, "", "", 0o644, tarfile.REGTYPE)
    }
    assert json.loads(content.pop("smol/deployconfig.json")) == CONFIG
    assert content == {f"smol/{name}": data for name, data in FILES.items()}
    assert outcome.size_bytes == archive.stat().st_size
    assert outcome.sha256 == hashlib.sha256(archive.read_bytes()).hexdigest()


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    first, one = export(artifact(tmp_path / "here"))
    folder = artifact(tmp_path / "there")
    for path in folder.iterdir():
        os.utime(path, ns=(1, 1))
    second, two = export(folder, "ds-2")
    assert one.read_bytes() == two.read_bytes()
    assert (first.sha256, first.key) == (second.sha256, second.key)


def test_progress_counts_the_bytes(data_dir: Path) -> None:
    out = io.BytesIO()
    export(artifact(data_dir), out=out)
    told = [line.progress for line in map(decode_line.decode, out.getvalue().splitlines()) if line.progress]
    assert {line.phase for line in told} == {"COPYING"}
    assert told[-1].share == 1.0
    assert told[-1].message == "packing: 2.3 of 2.3 MB"
    assert len(told) > 1


def test_a_file_of_another_content_is_not_packed(data_dir: Path) -> None:
    folder = artifact(data_dir)
    weights = folder / "weights"
    status = weights.stat()
    weights.chmod(0o644)
    weights.write_bytes(b"x" + FILES["weights"][1:])
    os.utime(weights, ns=(status.st_mtime_ns, status.st_mtime_ns))  # as if it had never been touched
    assert_corrupt(folder, "weights")


@pytest.mark.parametrize("content", [b"", FILES["weights"] + b"x", None])
def test_a_file_of_another_size_or_none_is_not_packed(data_dir: Path, content: bytes | None) -> None:
    folder = artifact(data_dir)
    (folder / "weights").unlink()
    if content is not None:
        (folder / "weights").write_bytes(content)
    assert_corrupt(folder, "weights")


def test_an_artifact_that_is_gone(data_dir: Path) -> None:
    folder = artifact(data_dir)
    shutil.rmtree(folder)
    assert_corrupt(folder, "manifest.json")


def assert_corrupt(folder: Path, name: str) -> None:
    with pytest.raises(Failed, match=name) as caught:
        export(folder)
    assert caught.value.reason is Reason.ARTIFACT_CORRUPT
    assert "import the model again" in caught.value.message
    assert not (folder.parent.parent / "exports").exists()


def test_a_disk_without_room_is_told_before_a_byte_is_written(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = artifact(data_dir)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1 << 40, 0, 1 << 20))
    with pytest.raises(Failed) as caught:
        export(folder)
    assert caught.value.reason is Reason.DISK_FULL
    assert list((data_dir / "scratch" / "ds-1").iterdir()) == []
