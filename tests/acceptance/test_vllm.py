"""vLLM behind the whole product, two replicas of it: texts, its start, failover, adoption, nothing left behind."""

import signal
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from tests.acceptance.clients import Askers, Stream
from tests.acceptance.server import Server, body
from tests.vllm_environment import PYTHON, needs_vllm

PROMPT = "And God said"
LONG: dict[str, Any] = {"temperature": 0, "max_tokens": 200}
START_S = 600

pytestmark = [needs_vllm, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def told() -> list[dict[str, Any]]:
    """Each distinct state of the deploy's job."""
    return []


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, told: list[dict[str, Any]]) -> Iterator[Server]:
    """gpt2-kjv, deployed on vLLM as `kjv`, twice, and on Transformers as `plain`."""
    with Server(tmp_path_factory.mktemp("vllm") / "data", DOCKYARD_VLLM_PYTHON=str(PYTHON)) as server:
        gpt2 = server.import_model("gpt2-kjv")
        told.extend(server.watch(server.begin_deploy(gpt2, body("kjv", "vllm", minReplicas=2)), START_S))
        assert told[-1]["status"] == "SUCCESS", f"{told[-1]}\n{server.log[-1500:]}"
        server.deploy(gpt2, body("plain", maxReplicas=1))
        yield server


@pytest.fixture(scope="module")
def deployment_id(served: Server, told: list[dict[str, Any]]) -> str:
    return told[-1]["deploymentId"]


def vllm_workers(server: Server) -> list[psutil.Process]:
    return [process for process in server.workers() if str(PYTHON) in process.cmdline()[0]]


def both_ready(server: Server, deployment_id: str) -> None:
    def ready() -> bool:
        return [replica["state"] for replica in server.replicas(deployment_id)] == ["Ready"] * 2

    server.until(ready, START_S)


def test_its_start_is_told_in_steps(served: Server, told: list[dict[str, Any]]) -> None:
    loading = [status for status in told if status["phase"] == "LOADING"]
    assert any("vLLM" in status["message"] or "weights" in status["message"] for status in loading)
    percentages = [status["percentageComplete"] for status in told]
    assert percentages == sorted(percentages)
    assert len({status["percentageComplete"] for status in loading}) > 1


def test_it_says_what_transformers_says(served: Server) -> None:
    assert served.complete("kjv", PROMPT, temperature=0, max_tokens=8) == served.complete(
        "plain", PROMPT, temperature=0, max_tokens=8
    )


def test_a_seed_makes_the_same_text_again(served: Server) -> None:
    first, again = (served.complete("kjv", PROMPT, temperature=1, seed=7, max_tokens=24) for _ in range(2))
    assert first == again
    assert served.complete("kjv", PROMPT, temperature=1, seed=8, max_tokens=24) != first


def test_a_stream_is_the_whole_text(served: Server) -> None:
    stream = Stream(served, "kjv", PROMPT, temperature=0, max_tokens=24)
    assert stream.whole() == served.complete("kjv", PROMPT, temperature=0, max_tokens=24)


@pytest.mark.parametrize("killed", ["the replica", "its engine's process alone"])
def test_streams_outlive_a_replica(served: Server, deployment_id: str, killed: str) -> None:
    """The front is suspended while its streams are under way, so that none is over before the end comes; if they all
    were over by then, once more.
    """
    undisturbed = served.complete("kjv", PROMPT, **LONG)
    before = served.metric("dockyard_failovers_total", "kjv")
    for _ in range(5):
        both_ready(served, deployment_id)
        front = vllm_workers(served)[0]
        below = front.children(recursive=True)
        streams = [Stream(served, "kjv", PROMPT, **LONG).after(1) for _ in range(4)]
        front.suspend()
        for process in below if killed.startswith("its") else [front]:
            process.kill()
        if front.is_running():
            front.resume()
        assert [stream.whole() for stream in streams] == [undisturbed] * 4
        _, alive = psutil.wait_procs([front, *below], timeout=30)
        assert not alive
        if served.metric("dockyard_failovers_total", "kjv") > before:
            return
    pytest.fail("no stream was under way when its replica ended, five times")


def test_a_redeploy_under_load_loses_nothing(served: Server, deployment_id: str) -> None:
    both_ready(served, deployment_id)
    text = served.complete("kjv", PROMPT, temperature=0, max_tokens=8)
    model_id = served.get(f"/deployments/{deployment_id}")["modelId"]
    with Askers(served, "kjv", PROMPT, 2, temperature=0, max_tokens=8) as askers:
        job_id = served.begin_deploy(model_id, body("kjv", "vllm", minReplicas=1, maxReplicas=1))
        served.wait(job_id, timeout_s=START_S)
        askers.go_on(4)
    assert askers.errors == []
    assert {answer.text for answer in askers.answers} == {text}
    served.until(lambda: len(vllm_workers(served)) == 1)


def test_an_adopted_replica_takes_its_engine_with_it(served: Server, deployment_id: str) -> None:
    (front,) = vllm_workers(served)
    below = front.children(recursive=True)
    served.kill()
    served.start()
    assert served.complete("kjv", PROMPT, temperature=0, max_tokens=8)
    (replica,) = served.replicas(deployment_id)
    assert replica["pid"] == front.pid
    front.kill()
    _, alive = psutil.wait_procs([front, *below], timeout=30)
    assert not alive
    served.until(lambda: [r["state"] for r in served.replicas(deployment_id)] == ["Ready"], START_S)


def test_without_a_server_it_ends_and_leaves_nothing(served: Server) -> None:
    """Nobody is there to clear away after it but itself and the kernel."""
    (front,) = vllm_workers(served)
    processes = [front, *front.children(recursive=True)]
    assert len(processes) > 1
    served.kill()
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert not alive
    served.start()
    served.until(lambda: bool(vllm_workers(served)))


def test_a_server_that_ends_leaves_nothing(served: Server) -> None:
    processes = [one for front in vllm_workers(served) for one in (front, *front.children(recursive=True))]
    served.send(signal.SIGTERM)
    assert served.ended() == 0
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert not alive
    run = served.data_dir / "run"
    assert not [path for path in run.iterdir() if path.suffix in (".sock", ".tmp")]
