"""vLLM behind the whole product, where its environment is at hand: `dockyard engines install vllm` makes one."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.acceptance.clients import Stream
from tests.acceptance.server import Server, body

CACHED = Path(__file__).parents[2] / ".cache" / "bench" / "vllm" / "bin" / "python"
PYTHON = Path(os.environ.get("DOCKYARD_VLLM_PYTHON", CACHED))
PROMPT = "And God said"

pytestmark = [
    pytest.mark.skipif(not PYTHON.exists(), reason="vLLM's environment is not here; DOCKYARD_VLLM_PYTHON names one"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """gpt2-kjv, deployed on vLLM as `kjv` and on Transformers as `plain`."""
    with Server(tmp_path_factory.mktemp("vllm") / "data", DOCKYARD_VLLM_PYTHON=str(PYTHON)) as server:
        gpt2 = server.import_model("gpt2-kjv")
        server.wait(server.begin_deploy(gpt2, body("kjv", "vllm", maxReplicas=1)), timeout_s=500)
        server.deploy(gpt2, body("plain", maxReplicas=1))
        yield server


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


def test_its_end_leaves_no_process_of_vllm(served: Server) -> None:
    (worker,) = [process for process in served.workers() if str(PYTHON) in process.cmdline()[0]]
    below = worker.children(recursive=True)
    assert below
    worker.send_signal(signal.SIGKILL)
    gone, alive = psutil.wait_procs(below, timeout=30)
    assert not alive, alive
    assert len(gone) == len(below)
