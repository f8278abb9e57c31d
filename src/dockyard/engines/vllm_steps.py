"""How far vLLM's start is, by the lines that it logs in its processes, and how they reach the replica's.

vLLM reads a logging configuration in each of its processes: `vllm_logging.json` sends warnings to the replica's log,
and all lines to `StepHandler` here, which tells those that it knows. Imports nothing of vLLM's.
"""

import contextlib
import logging
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from dockyard.engines.children import end_with_replica, known_to_children

_ADDRESS = "DOCKYARD_VLLM_STEPS"  # inherited by the processes that vLLM starts
_LONGEST = 16  # bytes: the index of a step

Tell = Callable[[float, str], object]


@dataclass(frozen=True, slots=True)
class Step:
    """`logger` is the end of the logger's name, `line` the beginning of what it logs; `share` of the start is over."""

    logger: str
    line: str
    share: float
    words: str


# In order. On a CPU nothing is compiled, so that the engine's process and its import take the most; on a GPU the
# compilation and the capture of graphs do.
STEPS = (
    Step(".config.model", "Resolved architecture", 0.05, "starts the process of vLLM's engine"),
    Step(".engine.core", "Initializing a V1 LLM engine", 0.35, "sets vLLM's engine up"),
    Step("_model_runner", "Starting to load model", 0.5, "reads the weights"),
    Step(".default_loader", "Loading weights took", 0.6, "has read the weights, and prepares to compute"),
    Step(".compilation.monitor", "torch.compile took", 0.75, "has compiled the kernels, and tries them"),
    Step(".kv_cache_utils", "GPU KV cache size", 0.85, "captures its graphs"),
    Step(".kv_cache_utils", "CPU KV cache size", 0.9, "takes the memory for keys and values"),
    Step(".engine.core", "init engine", 0.97, "ends the preparation"),
)


def logging_config() -> str:
    """The path of the configuration, for `VLLM_LOGGING_CONFIG_PATH`."""
    return str(resources.files("dockyard.engines") / "vllm_logging.json")


def step_of(logger: str, line: str) -> int | None:
    """The index in `STEPS` of what a line tells."""
    for index, step in enumerate(STEPS):
        if logger.endswith(step.logger) and line.startswith(step.line):
            return index
    return None


class StepHandler(logging.Handler):
    """Sends the steps to whoever listens in the process that this one was started by, or is; never blocks.

    vLLM makes one in each of its processes before anything else, so such a process is also bound to the replica here.
    """

    def __init__(self) -> None:
        super().__init__()
        end_with_replica()

    def emit(self, record: logging.LogRecord) -> None:
        address = os.environ.get(_ADDRESS)
        if address is None:
            return
        index = step_of(record.name, record.getMessage())
        if index is not None:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.setblocking(False)
                out.sendto(str(index).encode(), address)


@contextlib.contextmanager
def steps_told(tell: Tell) -> Iterator[None]:
    """Inside this, `tell` is called on a thread of its own with each step of vLLM's start: its share and its words."""
    with tempfile.TemporaryDirectory(prefix="steps-") as folder:
        address = str(Path(folder, "s"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
            inbox.bind(address)
            thread = threading.Thread(target=_hear, args=(inbox, tell), daemon=True)
            thread.start()
            os.environ[_ADDRESS] = address
            try:
                with known_to_children():
                    yield
            finally:
                del os.environ[_ADDRESS]
                inbox.shutdown(socket.SHUT_RD)  # wakes the thread
                thread.join()


def _hear(inbox: socket.socket, tell: Tell) -> None:
    furthest = -1.0
    while told := inbox.recv(_LONGEST):
        step = STEPS[int(told)]
        if step.share > furthest:
            furthest = step.share
            tell(step.share, step.words)
