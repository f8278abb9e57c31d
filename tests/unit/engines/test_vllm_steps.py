"""vLLM's log lines as steps of its start, and their way from its processes to the replica's."""

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dockyard.engines import vllm_steps
from dockyard.engines.vllm_steps import STEPS, StepHandler, logging_config, step_of, steps_told

RESOLVED = "Resolved architecture: GPT2LMHeadModel"
LOADING = "Starting to load model /models/a..."


def record(name: str, line: str) -> logging.LogRecord:
    return logging.LogRecord(name, logging.INFO, "file.py", 1, line, None, None)


@pytest.mark.parametrize(
    ("logger", "line", "words"),
    [
        ("vllm.config.model", RESOLVED, "starts the process of vLLM's engine"),
        ("vllm.v1.worker.cpu_model_runner", LOADING, "reads the weights"),
        ("vllm.v1.worker.gpu_model_runner", LOADING, "reads the weights"),
    ],
)
def test_known_lines_are_steps(logger: str, line: str, words: str) -> None:
    index = step_of(logger, line)
    assert index is not None
    assert STEPS[index].words == words


def test_other_lines_are_none() -> None:
    assert step_of("vllm.config.model", "Using max model len 256") is None
    assert step_of("vllm.other", RESOLVED) is None


def test_shares_grow_and_none_is_the_end() -> None:
    shares = [step.share for step in STEPS]
    assert shares == sorted(shares)
    assert shares[-1] < 1


def test_steps_come_in_order_and_once() -> None:
    told: list[tuple[float, str]] = []
    both = threading.Event()

    def tell(share: float, words: str) -> None:
        told.append((share, words))
        if len(told) == 2:
            both.set()

    handler = StepHandler()
    with steps_told(tell):
        for name, line in (
            ("vllm.config.model", RESOLVED),
            ("vllm.config.model", RESOLVED),
            ("vllm.v1.worker.cpu_model_runner", LOADING),
            ("vllm.config.model", RESOLVED),
        ):
            handler.emit(record(name, line))
        assert both.wait(10)
    assert [words for _, words in told] == ["starts the process of vLLM's engine", "reads the weights"]
    handler.emit(record("vllm.config.model", RESOLVED))  # nobody listens any more


def test_the_configuration_names_the_handler() -> None:
    handlers = json.loads(Path(logging_config()).read_text())["handlers"]
    assert handlers["steps"]["class"] == f"{vllm_steps.__name__}.{StepHandler.__name__}"


def test_a_process_of_the_engine_dies_with_the_replica() -> None:
    """The replica makes one, which says its pid once it is bound, and is killed."""
    child = (
        "from dockyard.engines.children import end_with_replica as e; e(); import os; print(os.getpid(), flush=True); "
    )
    replica = (
        "import subprocess, sys; from dockyard.engines.children import known_to_children\n"
        "with known_to_children():\n"
        f"    child = subprocess.Popen([sys.executable, '-c', {child + 'import sys; sys.stdin.read()'!r}])\n"
        "child.wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", replica], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pidfd = os.pidfd_open(int(process.stdout.readline()))
        process.kill()
        assert not process.stdout.read()  # the child held this end, too
        os.close(pidfd)
