"""One server for the tests that only read or deploy beside each other; the others start their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.acceptance.server import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest.fixture
def own_data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"
