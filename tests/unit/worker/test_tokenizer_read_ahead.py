"""What was read ahead is what is loaded, and not without bound."""

from pathlib import Path

import pytest

from dockyard.protocols.spares import MOST_READ_AHEAD
from dockyard.worker import tokenizer
from dockyard.worker.tokenizer import load_tokenizer, read_ahead


@pytest.fixture(autouse=True)
def nothing_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "_read_ahead", {})


def test_the_one_that_was_read_is_the_one_that_is_loaded(tmp_path: Path) -> None:
    assert load_tokenizer(tmp_path) is not load_tokenizer(tmp_path)
    read_ahead(tmp_path)
    assert load_tokenizer(tmp_path) is load_tokenizer(tmp_path)


def test_those_read_last_are_kept(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(MOST_READ_AHEAD + 1)]
    for folder in folders:
        read_ahead(folder)
    kept = [folder for folder in folders if load_tokenizer(folder) is load_tokenizer(folder)]
    assert kept == folders[1:]
