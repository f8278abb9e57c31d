"""What is typed for a model to import: a path, or a repository of the hub."""

from pathlib import Path

import pytest

from dockyard.cli.failures import BadUsage
from dockyard.cli.source import read_source


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "t5").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "wire", "name", "guessed"),
    [
        ("hf:org/repo", {"huggingFace": "org/repo"}, "repo", False),
        ("hf:models/t5", {"huggingFace": "models/t5"}, "t5", False),
        ("org/repo-1.5B_x", {"huggingFace": "org/repo-1.5B_x"}, "repo-1.5B_x", True),
        ("/srv/models/t5-v1.1", {"path": "/srv/models/t5-v1.1"}, "t5-v1.1", False),
        ("/srv/smol.gguf", {"path": "/srv/smol.gguf"}, "smol", False),
        ("models/t5", {"path": "{here}/models/t5"}, "t5", False),
        ("./org/repo", {"path": "{here}/org/repo"}, "repo", False),
        ("t5", {"path": "{here}/t5"}, "t5", False),
        ("org/repo/more", {"path": "{here}/org/repo/more"}, "more", False),
        ("exports/t5.tar", {"path": "{here}/exports/t5.tar"}, "t5", False),
        ("gguf/smol.gguf", {"path": "{here}/gguf/smol.gguf"}, "smol", False),
    ],
)
def test_what_is_typed(here: Path, typed: str, wire: dict[str, str], name: str, guessed: bool) -> None:
    source = read_source(typed, None, None)
    assert source.wire == {key: value.format(here=here) for key, value in wire.items()}
    assert (source.name, source.guessed) == (name, guessed)
    assert (source.path is None) == ("huggingFace" in wire)


def test_a_revision_and_a_file_of_the_hub() -> None:
    source = read_source("org/repo", "v1", "m-q4.gguf")
    assert source.wire == {"huggingFace": "org/repo", "revision": "v1", "file": "m-q4.gguf"}
    assert source.name == "m-q4"


@pytest.mark.parametrize(
    ("typed", "revision", "file", "told"),
    [
        ("hf:repo", None, None, "hf:org/repo"),
        ("hf:../etc/passwd", None, None, "hf:org/repo"),
        ("models/t5", "main", None, "--revision"),
        ("./org/repo", None, "m.gguf", "--file"),
        ("", None, None, "SOURCE is empty"),
        ("https://huggingface.co/org/repo/tree/main", None, None, "hf:org/repo$"),
        ("https://hf.co/them/that?x=1", None, None, "hf:them/that$"),
        ("http://elsewhere.example/model.tar", None, None, "hf:org/repo$"),
    ],
)
def test_what_cannot_be_meant(typed: str, revision: str | None, file: str | None, told: str) -> None:
    with pytest.raises(BadUsage, match=told):
        read_source(typed, revision, file)
