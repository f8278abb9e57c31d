"""Each cell of the matrix that says yes, through the whole product: imported, deployed, asked over HTTP, undeployed.

The models are those of `tests/integration/test_matrix.py`, with what the product had converted them to: what is proven
here is that a server makes replicas of each of them, and that a client gets what Transformers itself would write.
"""

import json
import shutil
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.server import Server, body
from tests.integration.matrix_configs import CONFIGS
from tests.integration.matrix_models import NEW_TOKENS, TEXT, cells

from dockyard.domain.compatibility import compute_type
from dockyard.domain.spec import EngineName, Quantization

pytestmark = pytest.mark.timeout(420)

Cell = tuple[str, EngineName, Quantization]
CELLS: list[Cell] = [(name, engine, quantization) for name, _, engine, quantization in cells() if name in CONFIGS]
AT_ONCE = 3  # models; each deploys its cells one after the other
HALF = "\ufffd"  # a last character of which only some bytes came; a server does not send it
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": NEW_TOKENS}


@pytest.fixture(scope="module")
def served(matrix_models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Cell, dict[str, Any]]:
    """What came of each cell: the dock status' `response` and the completion, or the error as `error`."""
    data_dir = tmp_path_factory.mktemp("cells") / "data"
    data_dir.mkdir(mode=0o700)
    shutil.copytree(matrix_models / "artifacts", data_dir / "artifacts")
    by_model: dict[str, list[Cell]] = defaultdict(list)
    for cell in CELLS:
        by_model[cell[0]].append(cell)
    with Server(data_dir) as server, ThreadPoolExecutor(AT_ONCE) as pool:
        each = pool.map(lambda name: serve(server, matrix_models / "models" / name, by_model[name]), by_model)
        return {cell: came for several in each for cell, came in several.items()}


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: "-".join(map(str, cell)))
def test_a_cell_that_says_yes_is_deployed_and_answers(
    served: dict[Cell, dict[str, Any]], matrix_models: Path, cell: Cell
) -> None:
    name, engine, quantization = cell
    came = served[cell]
    assert "error" not in came, came["error"]
    assert came["response"]["engine"] == engine
    assert came["response"]["computeType"] == compute_type(engine, quantization, "cpu")
    assert came["completion"]["usage"]["completion_tokens"] == NEW_TOKENS
    if quantization is Quantization.NONE:  # int8 says nearly the same, and may choose otherwise
        alone = json.loads((matrix_models / "seen.json").read_text())[name]["text"]
        assert came["completion"]["choices"][0]["text"].rstrip(HALF) == alone.rstrip(HALF)


def serve(server: Server, folder: Path, planned: list[Cell]) -> dict[Cell, dict[str, Any]]:
    """Import the model, then deploy, ask and undeploy it on each engine."""
    came: dict[Cell, dict[str, Any]] = {}
    wish = {"name": folder.name, "modelType": "openSource", "source": {"path": str(folder)}}
    accepted = server.post("/models", wish)
    for cell in planned:
        try:
            server.wait(accepted["dockStatusId"])
            came[cell] = serve_cell(server, accepted["modelId"], cell)
        except AssertionError as error:
            came[cell] = {"error": str(error)}
    return came


def serve_cell(server: Server, model_id: str, cell: Cell) -> dict[str, Any]:
    architecture, engine, quantization = cell
    name = f"{architecture} {engine} {quantization}"
    wish = body(name, "" if engine is EngineName.TRANSFORMERS else engine, quantization, maxReplicas=1)
    status = server.deploy(model_id, wish)
    reply = server.call("POST", "/v1/completions", json={"model": name, "prompt": TEXT, **GREEDY})
    assert reply.status_code == 200, reply.text
    ended = server.post(f"/models/{model_id}/undeploy?name={name}")
    server.wait(ended["dockStatusId"])
    return {"response": status["response"], "completion": reply.json()}
