"""What tests of several packages share."""

from collections import Counter
from pathlib import Path

import pytest
from tests.conversion import convert_all
from tests.once import made_once

from dockyard.fleets.local.nvml import Nvml


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where tests run in several processes, only one of those that share an id would."""
    shared = [test_id for test_id, count in Counter(item.nodeid for item in items).items() if count > 1]
    if shared:
        raise pytest.UsageError(f"several tests have the same id: {', '.join(shared)}")
    wanted = [item for item in items if item.get_closest_marker("gpu")]
    if wanted and not any(gpu.fault is None for gpu in Nvml().read().gpus):
        for item in wanted:
            item.add_marker(pytest.mark.skip(reason="this machine has no GPU that the engines could use"))


@pytest.fixture(scope="session")
def converted_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `tests.conversion.artifact_of`. Nobody writes to it."""
    return made_once(tmp_path_factory, "converted", convert_all)


@pytest.fixture(scope="session")
def matrix_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `tests.integration.matrix_models` fills. Nobody writes to it."""
    from tests.integration.matrix_models import make_all  # imports much that few tests need

    return made_once(tmp_path_factory, "matrix", make_all)
