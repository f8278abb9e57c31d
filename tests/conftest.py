"""What tests of several packages share."""

from collections import Counter
from pathlib import Path

import pytest
from tests.conversion import convert_all
from tests.once import made_once


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run in several processes, only one of those that share an id would."""
    shared = [test_id for test_id, count in Counter(item.nodeid for item in items).items() if count > 1]
    if shared:
        raise pytest.UsageError(f"several tests have the same id: {', '.join(shared)}")


@pytest.fixture(scope="session")
def converted_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `tests.conversion.artifact_of`. Nobody writes to it."""
    return made_once(tmp_path_factory, "converted", convert_all)
