"""The echo engine: answers with its prompt, once, then ends. For tests, and for measuring all that is not an engine.

Its model folder's `config.json` may set `step_ms`: absent, the answer comes at once; a number, one token every so many
milliseconds (0: every pass of the loop), for tests that must see a generation under way. `faults` maps maxBatchSizes to
what goes wrong at each: `load`, `memory`, `hang` (a load without end) or `warm_up`, for tests of a version that cannot
start beside one that serves.
"""

import asyncio
import os
import threading
from collections import deque
from pathlib import Path
from typing import Any

import msgspec

from dockyard.engines.base import Generation, Row
from dockyard.engines.failures import translated
from dockyard.errors import Failed, Reason
from dockyard.protocols.generation import Adapter, WorkerSpec

EOS = 256  # the ids below are bytes


def create(spec: WorkerSpec) -> "EchoEngine":
    return EchoEngine(spec)


class EchoEngine:
    name = "echo"
    can_seed = True  # there is no chance in it
    constraints = None

    def __init__(self, spec: WorkerSpec) -> None:
        self.capacity = spec.max_batch_size
        self.eos_token_ids = frozenset(spec.eos_token_ids or (EOS,))
        self.largest_batch = 0
        self._eos = min(self.eos_token_ids)
        self._config = Path(spec.artifact_dir, "config.json")
        self._step_s: float | None = None
        self._fault: str | None = None
        self._running: set[Generation] = set()
        self._waiting: deque[Generation] = deque()

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def load(self) -> None:
        try:
            config: dict[str, Any] = msgspec.json.decode(self._config.read_bytes(), type=dict[str, Any])
        except (OSError, msgspec.DecodeError) as error:
            raise translated(error, f"reading {self._config.name}") from error
        step_ms = config.get("step_ms")
        self._step_s = None if step_ms is None else step_ms / 1000
        self._fault = config.get("faults", {}).get(str(self.capacity))
        if self._fault == "load":
            raise Failed("the echo engine was told to refuse this model", reason=Reason.ENGINE_FAILED)
        if self._fault == "hang":
            threading.Event().wait()
        if self._fault == "memory":
            _exhaust_memory()

    def submit(self, row: Row, adapter: Adapter | None = None) -> Generation:
        """`adapter` changes nothing: an echo stays one."""
        if self._fault == "warm_up":
            os.abort()  # as native code that runs into a wall
        generation = Generation(row, self._leave)
        if self._step_s is None:
            self.largest_batch = self.largest_batch or 1
            generation.deliver(self._answer(row))
            generation.end()
            return generation
        self._waiting.append(generation)
        self._admit()
        return generation

    def close(self) -> None:
        for generation in (*self._waiting, *self._running):
            generation.cancel()

    def _answer(self, row: Row) -> list[int]:
        rest = row.prompt[len(row.resume) :]
        return [*rest, self._eos][: row.max_new]

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self.capacity:
            generation = self._waiting.popleft()
            self._running.add(generation)
            self.largest_batch = max(self.largest_batch, len(self._running))
            self._step(generation, deque(self._answer(generation.row)))

    def _step(self, generation: Generation, left: deque[int]) -> None:
        if generation.ended:
            return
        if not left:
            generation.end()
            self._leave(generation)
            return
        generation.deliver([left.popleft()])
        asyncio.get_running_loop().call_later(self._step_s or 0, self._step, generation, left)

    def _leave(self, generation: Generation) -> None:
        self._running.discard(generation)
        if generation in self._waiting:
            self._waiting.remove(generation)
        self._admit()


def _exhaust_memory() -> None:
    """Ask for more than any address space holds; nothing is touched."""
    try:
        bytearray(1 << 60)
    except MemoryError as error:
        raise translated(error, "loading the echo engine") from error
