"""Unpacking: what comes out of sound archives, and that nothing does of hostile ones."""

import hashlib
import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from tests.hostile_archives import Hostile
from tests.hostile_tars import TARS, entry, pax, tar
from tests.hostile_zips import ZIPS, Part, make_zip

from dockyard.errors import Failed, Reason
from dockyard.prepare.archive import unpack_upload
from dockyard.prepare.chunked_file import ChunkedFile
from dockyard.prepare.reporting import Reporter
from dockyard.protocols.preparation import UploadSource


def unpack(folder: Path, content: bytes, extension: str, *, chunk_bytes: int = 0, sha256: str | None = None) -> Path:
    """Cut into chunks below `folder`, and unpacked beside them."""
    chunk_bytes = chunk_bytes or max(1, len(content) // 3)
    chunks, scratch = folder / "chunks", folder / "scratch"
    chunks.mkdir()
    scratch.mkdir()
    pieces = [content[at : at + chunk_bytes] for at in range(0, len(content), chunk_bytes)]
    for number, piece in enumerate(pieces):
        (chunks / str(number)).write_bytes(piece)
    source = UploadSource(folder=str(chunks), chunks=len(pieces), extension=extension, sha256=sha256)
    return unpack_upload(source, scratch, Reporter(io.BytesIO()), 0.9)


def unpacked(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("hostile", [*TARS, *ZIPS], ids=str)
def test_a_hostile_archive_is_refused_with_its_reason(hostile: Hostile, tmp_path: Path) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    with pytest.raises(Failed) as refusal:
        unpack(inside, hostile.content(), hostile.extension)
    assert refusal.value.reason is hostile.reason, refusal.value.message
    assert len(refusal.value.message) < 400
    assert refusal.value.message.isprintable()
    assert set(os.listdir(tmp_path)) == {"a"}
    assert set(os.listdir(tmp_path / "a")) == {"b"}
    assert set(os.listdir(inside)) == {"chunks", "scratch"}
    for path in (inside / "scratch").rglob("*"):
        assert path.is_dir() or path.stat().st_size <= 1 << 20  # what showed only in the content


def _folder(path: Path) -> Path:
    path.mkdir()
    for name, content in (("config.json", b"{}"), ("model.safetensors", b"w" * 5000), ("tokenizer.json", b"{}")):
        (path / name).write_bytes(content)
    return path


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("top", ["", ".", "model", "a/" * 60 + "model"])
def test_a_tar_of_any_tool_and_depth_is_read(form: int, top: str, tmp_path: Path) -> None:
    folder, out = _folder(tmp_path / "model"), io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        if top:
            archive.add(folder, top)
        else:
            for path in folder.iterdir():
                archive.add(path, path.name)
    found = unpack(tmp_path, out.getvalue(), "tar", chunk_bytes=777)
    assert unpacked(found) == unpacked(folder)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("top", ["", "model/", "a/b/"])
def test_a_zip_is_read(method: int, top: str, tmp_path: Path) -> None:
    folder, out = _folder(tmp_path / "model"), io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        if top:
            archive.mkdir(top)
        for path in folder.iterdir():
            archive.write(path, top + path.name)
    found = unpack(tmp_path, out.getvalue(), "zip", chunk_bytes=777)
    assert unpacked(found) == unpacked(folder)


def test_only_what_makes_up_a_model_leaves_the_archive(tmp_path: Path) -> None:
    archive = tar(
        entry("m/config.json"),
        entry("m/model.safetensors", b"weights"),
        entry("m/pytorch_model.bin", b"pickle"),
        entry("m/modeling.py", b"import os"),
        entry("m/run.sh", b"rm"),
        entry("m/original/consolidated.pth", b"pickle"),
        entry("m/.gitattributes", b"x"),
        entry("m/._config.json", b"x"),
        entry("__MACOSX/m/._config.json", b"x"),
        entry(".DS_Store", b"x"),
        entry("m/deployconfig.json", b'{"name": "n"}'),
    )
    assert unpacked(unpack(tmp_path, archive, "tar")) == {
        "config.json": b"{}",
        "deployconfig.json": b'{"name": "n"}',
        "model.safetensors": b"weights",
        "pytorch_model.bin": b"",  # judged by their names, so their bytes are not needed
        "modeling.py": b"",
    }


def test_long_names_and_sizes_of_pax_are_understood(tmp_path: Path) -> None:
    long = "folder-" * 30
    archive = tar(
        pax(("comment", "made by a tool"), kind=tarfile.XGLTYPE),
        pax(("path", f"{long}/config.json"), ("mtime", "1.5"), ("SCHILY.xattr.user.x", "=\n=")),
        entry("config.json"),
        pax(("path", f"{long}/model.safetensors"), ("size", "7")),
        entry("x", b"weights"),
    )
    assert unpacked(unpack(tmp_path, archive, "tar")) == {"config.json": b"{}", "model.safetensors": b"weights"}


def test_a_gguf_file_alone_is_what_is_imported(tmp_path: Path) -> None:
    found = unpack(tmp_path, make_zip(Part(b"m/tiny.gguf", b"GGUF"), Part(b"m/README.md", b"#")), "zip")
    assert found.name == "tiny.gguf"
    assert found.read_bytes() == b"GGUF"


def test_the_digest_of_the_whole_is_compared(tmp_path: Path) -> None:
    archive = tar(entry("config.json"))
    good = hashlib.sha256(archive).hexdigest()
    (tmp_path / "good").mkdir()
    unpack(tmp_path / "good", archive, "tar", sha256=good)
    (tmp_path / "bad").mkdir()
    with pytest.raises(Failed) as refusal:
        unpack(tmp_path / "bad", archive + bytes(512), "tar", sha256=good)
    assert refusal.value.reason is Reason.DIGEST_MISMATCH
    assert os.listdir(tmp_path / "bad" / "scratch") == []


def test_a_gigabyte_of_config_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    header = tarfile.TarInfo("config.json")
    header.size = 1 << 30
    chunks, scratch = tmp_path / "chunks", tmp_path / "scratch"
    chunks.mkdir()
    scratch.mkdir()
    with (chunks / "0").open("wb") as file:  # sparse on the disk
        file.write(header.tobuf())
        file.truncate(512 + header.size + 1024)
    with pytest.raises(Failed) as refusal:
        unpack_upload(UploadSource(folder=str(chunks), chunks=1, extension="tar"), scratch, Reporter(io.BytesIO()), 0.9)
    assert refusal.value.reason is Reason.CONFIG_UNREADABLE
    assert os.listdir(scratch) == []


def test_a_chunk_that_is_gone_is_named(tmp_path: Path) -> None:
    (tmp_path / "0").write_bytes(b"a")
    with pytest.raises(Failed, match="chunk 1 of the upload is gone"):
        ChunkedFile([tmp_path / "0", tmp_path / "1"], 100)


def test_chunks_read_as_one_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 9
    paths = [tmp_path / str(number) for number in range(24)]
    for number, path in enumerate(paths):
        path.write_bytes(content[number * 100 : (number + 1) * 100])
    with ChunkedFile(paths, 4000) as file:
        assert file.size == len(content)
        assert file.read() == content
        for at, count in ((0, 5), (95, 10), (99, 301), (2300, 50), (2304, 1)):
            file.seek(at)
            assert file.read(count) == content[at : at + count]
        file.seek(-3, os.SEEK_END)
        assert file.read() == content[-3:]
