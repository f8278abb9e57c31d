"""Fine-tunes on vLLM keep their adapters apart from their base, and share its weights."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest
from tests.acceptance import test_vllm
from tests.acceptance.server import Server, body
from tests.acceptance.test_adapters import GREEDY, PROMPT, bring
from tests.tiny_adapters import write_adapter, write_base

pytestmark = test_vllm.pytestmark
ENGINE = "dockyard.worker.shared_engine"
NAMES = ("one", "two")
SCHEMA = {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 1}
FORMAT: dict[str, Any] = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": SCHEMA}}
Served = tuple[Server, dict[str, str]]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two fine-tunes of one base, each deployed on vLLM and, merged, on Transformers; and their model ids."""
    folder = tmp_path_factory.mktemp("vllm")
    with Server(folder / "data", DOCKYARD_VLLM_PYTHON=str(test_vllm.PYTHON)) as server:
        base = bring(server, "base", write_base(folder / "base", "llama"))
        models: dict[str, str] = {}
        deploys: list[str] = []
        for seed, name in enumerate(NAMES):
            adapter = write_adapter(folder / name, "llama", seed=seed, rank=4 + seed)
            models[name] = bring(server, name, adapter, baseModelId=base)
            for engine in ("vllm", ""):
                wish = body(f"{name} {engine}".strip(), engine, maxReplicas=1)
                deploys.append(server.begin_deploy(models[name], wish, "fineTune"))
        for deploy in deploys:
            server.wait(deploy, timeout_s=500)
        yield server, models
        left = engines(server)
    assert not psutil.wait_procs(left, timeout=60)[1]


def engines(server: Server) -> list[psutil.Process]:
    """The processes that hold weights for replicas."""
    own = [
        process for process in psutil.process_iter(["cmdline"]) if "dockyard.worker.shared_engine" in cmdline(process)
    ]
    return [process for process in own if str(server.data_dir) in str(process.environ().values())]


def cmdline(process: psutil.Process) -> list[str]:
    return process.info["cmdline"] or []


def test_each_says_what_its_merged_weights_say_and_both_are_in_one_engine(
    served: Served,
) -> None:
    server, _ = served
    said = [server.complete(f"{name} vllm", PROMPT, **GREEDY) for name in NAMES]
    assert said == [server.complete(name, PROMPT, **GREEDY) for name in NAMES]
    assert said[0] != said[1]
    assert len(engines(server)) == 1


def test_formats_scores_and_choices_come_from_each_ones_own_weights(served: Served) -> None:
    """Rows of both fine-tunes, three each, one after the other on Transformers and all at once on vLLM."""
    server, _ = served
    asked = {"prompt": PROMPT, "response_format": FORMAT, "logprobs": 2, "n": 3, **GREEDY}

    def told(model: str) -> list[tuple[str, list[float]]]:
        reply = server.call("POST", "/v1/completions", json={"model": model, **asked})
        assert reply.status_code == 200, reply.text
        choices = reply.json()["choices"]
        return [(choice["text"], choice["logprobs"]["token_logprobs"]) for choice in choices]

    with ThreadPoolExecutor() as clients:
        shared = list(clients.map(told, [f"{name} vllm" for name in NAMES]))
    for name, choices in zip(NAMES, shared, strict=True):
        for (text, scores), (expected, own) in zip(choices, told(name), strict=True):
            assert json.loads(text) in ([True], [False])
            assert (text, scores) == (expected, pytest.approx(own, abs=1e-3))


def test_one_leaves_and_the_other_stays(served: Served) -> None:
    server, models = served
    (engine,) = engines(server)
    server.wait(server.post(f"/models/{models['one']}/undeploy")["dockStatusId"])
    assert server.complete("two vllm", PROMPT, **GREEDY) == server.complete("two", PROMPT, **GREEDY)
    below = [engine, *engine.children(recursive=True)]
    server.wait(server.post(f"/models/{models['two']}/undeploy")["dockStatusId"])
    assert not psutil.wait_procs(below, timeout=60)[1]
