"""Each cell of the matrix that says yes is proven: a tiny random model of the architecture generates on the engine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.matrix_models import CONFIGS, NEW_TOKENS

from dockyard.domain.compatibility import ARCHITECTURES
from dockyard.domain.spec import EngineName

INSTALLED = (EngineName.TRANSFORMERS, EngineName.CTRANSLATE2)
CELLS = [(name, engine) for name in CONFIGS for engine in ARCHITECTURES[name].engines if engine in INSTALLED]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    folder = tmp_path_factory.mktemp("matrix")
    command = [sys.executable, "-W", "ignore", "-m", "tests.integration.matrix_models", str(folder)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, check=True, timeout=170)
    return json.loads(done.stdout)


def test_every_architecture_of_the_matrix_is_tried() -> None:
    assert set(CONFIGS) == set(ARCHITECTURES) - {"EchoForCausalLM"}


@pytest.mark.parametrize(("architecture", "engine"), CELLS)
def test_a_cell_that_says_yes_generates(
    seen: dict[str, dict[str, object]], architecture: str, engine: EngineName
) -> None:
    told = seen[architecture][engine]
    assert isinstance(told, list), told
    assert len(told) == NEW_TOKENS


@pytest.mark.parametrize("architecture", [name for name, engine in CELLS if engine is EngineName.CTRANSLATE2])
def test_ctranslate2_continues_as_transformers_does(seen: dict[str, dict[str, object]], architecture: str) -> None:
    assert seen[architecture][EngineName.CTRANSLATE2] == seen[architecture][EngineName.TRANSFORMERS]
