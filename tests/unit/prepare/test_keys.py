"""Keys depend on what they name and on nothing else; manifests are read back or refused."""

from pathlib import Path

import pytest

from dockyard.errors import Failed, Invalid, Reason
from dockyard.prepare.artifacts import Artifacts
from dockyard.prepare.files import write_file
from dockyard.prepare.manifest import (
    FileEntry,
    Manifest,
    converted_key,
    imported_key,
    read_manifest,
    write_manifest,
    wrong_sizes,
)


def _entry(name: str, sha256: str, mtime_ns: int = 1) -> FileEntry:
    return FileEntry(name=name, size=1, sha256=sha256, mtime_ns=mtime_ns)


def test_the_key_of_imported_files_is_stable() -> None:
    # Stored artifacts are found by it: it must never change.
    files = [_entry("config.json", "aa"), _entry("model.safetensors", "bb")]
    assert imported_key(files) == "23a845f3bc755546466c20557cc02a27fd5fb465650974ce155bdad162b7b7b6"


def test_order_and_times_do_not_count_names_and_contents_do() -> None:
    one = imported_key([_entry("a", "aa", 1), _entry("b", "bb", 2)])
    assert one == imported_key([_entry("b", "bb", 9), _entry("a", "aa", 8)])
    assert one != imported_key([_entry("a", "bb"), _entry("b", "aa")])
    assert one != imported_key([_entry("a", "aa")])


def test_each_part_of_a_conversion_counts() -> None:
    parts = ("source", "ctranslate2", "int8_float16", "ctranslate2 4.8 recipe 1")
    keys = {converted_key(*parts)} | {
        converted_key(*(part + "x" if index == changed else part for index, part in enumerate(parts)))
        for changed in range(4)
    }
    assert len(keys) == 5


def test_a_manifest_is_read_back(tmp_path: Path) -> None:
    entry = write_file(tmp_path, "config.json", b"{}")
    manifest = Manifest(key="k", files=(entry,), source_key="s")
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert wrong_sizes(tmp_path, manifest.files) == []
    assert (tmp_path / "config.json").stat().st_mode & 0o777 == 0o444


def test_a_file_of_another_size_is_named(tmp_path: Path) -> None:
    entry = write_file(tmp_path, "config.json", b"{}")
    (tmp_path / "config.json").unlink()
    assert wrong_sizes(tmp_path, [entry]) == ["config.json"]


def test_a_manifest_that_is_none_is_a_corrupt_artifact(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(Failed) as caught:
        read_manifest(tmp_path)
    assert caught.value.reason is Reason.ARTIFACT_CORRUPT
    assert str(tmp_path.parent) not in caught.value.message


@pytest.mark.parametrize("key", ["", "../etc", "a" * 63, "A" * 64, "a" * 64 + "\n"])
def test_a_key_never_names_a_path(tmp_path: Path, key: str) -> None:
    artifacts = Artifacts(tmp_path)
    assert not artifacts.has(key)
    with pytest.raises(Invalid):
        artifacts.folder(key)
