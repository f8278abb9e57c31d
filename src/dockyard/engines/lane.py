"""One thread that runs batches, one after the other, and hands their tokens to the event loop."""

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from dockyard.domain.batching import FIRST_PACE_S
from dockyard.engines.base import Chance, Generation, Row
from dockyard.engines.failures import translated
from dockyard.engines.outbox import Outbox


class Emit(Protocol):
    """For the engine's thread; `index` is the row's in the batch."""

    def __call__(self, index: int, token: int, chance: Chance | None = None) -> bool:
        """True when that row must stop."""
        ...

    def fail(self, index: int, error: Exception) -> None:
        """End that row, and no other."""
        ...


class Outlet(Emit, Protocol):
    """To the loop, which hears of all that at the next `flush`."""

    def flush(self) -> None:
        """A step is over, as far as one can tell. The end of the batch needs none."""
        ...


RunBatch = Callable[[Sequence[Row], Outlet], None]


class Lane:
    """`run_batch` blocks; rows stop one by one, a batch ends with its last row. Then `on_done` is called on the loop.

    `formed_at` (the loop's clock) is the batch's; `most_here` is a note of whoever forms the batches. `lasting` False:
    each batch has a thread of its own, which ends with it. For as long as a second thread has computed with OpenMP, all
    of the process's threads hardly spin any more, and Transformers computes at two thirds of its speed (ADR 8).
    """

    def __init__(
        self,
        run_batch: RunBatch,
        *,
        eos_token_ids: frozenset[int],
        on_done: Callable[["Lane", list[Generation]], None],
        lasting: bool = True,
    ) -> None:
        self.batch: list[Generation] = []
        self.formed_at = 0.0
        self.most_here = 0
        self._steps = 0  # of the batch so far; its thread counts
        self._last_pace_s = FIRST_PACE_S
        self._run_batch = run_batch
        self._on_done = on_done
        self._work: queue.SimpleQueue[list[Generation] | None] = queue.SimpleQueue()
        self._outbox = Outbox(eos_token_ids)
        self._lasting = lasting
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> int:
        return sum(not generation.ended for generation in self.batch)

    @property
    def pace_s(self) -> float:
        """Seconds for a step of the batch that runs, or of the last one while nothing is known of this one."""
        told_at = self._outbox.told_at
        if told_at <= self.formed_at:
            return self._last_pace_s
        return (told_at - self.formed_at) / max(1, self._steps)

    def begin(self, batch: list[Generation]) -> None:
        """Run `batch`; the lane must be idle."""
        loop = self._outbox.use_this_loop()
        self.batch = batch
        self._last_pace_s = self.pace_s
        self.formed_at = loop.time()
        self._steps = 0
        if not self._lasting:
            self._thread = threading.Thread(target=self._serve_one, args=(batch,), name="engine", daemon=True)
            self._thread.start()
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
            self._thread.start()
        self._work.put(batch)

    def close(self) -> None:
        """End what runs and wait for the thread, a step at most: an interpreter must not end under native code."""
        for generation in self.batch:
            generation.cancel()
        self._work.put(None)
        if self._thread is not None:
            self._thread.join()

    def _finish(self) -> None:
        """On the loop."""
        self._outbox.deliver()
        batch, self.batch = self.batch, []
        self._on_done(self, batch)

    # On the thread

    def _serve(self) -> None:
        while (batch := self._work.get()) is not None:
            self._serve_one(batch)

    def _serve_one(self, batch: list[Generation]) -> None:
        self._run(batch)
        self._outbox.call_loop(self._finish)

    def _run(self, batch: list[Generation]) -> None:
        for generation in batch:
            self._outbox.begin(generation)
        error: BaseException | None = None
        try:
            self._run_batch([generation.row for generation in batch], _Emitted(self, batch))
        # Whatever the library throws is the answer of these rows, no more; a panic of Rust's is no Exception.
        except BaseException as failure:  # noqa: BLE001
            error = translated(failure, "the generation")
        for generation in batch:
            self._outbox.end(generation, error)

    def emit(self, generation: Generation, token: int, chance: Chance | None) -> bool:
        self._steps = max(self._steps, self._outbox.taken(generation) + 1)
        return self._outbox.take(generation, token, chance)

    def fail(self, generation: Generation, error: Exception) -> None:
        self._outbox.end(generation, error)

    def flush(self) -> None:
        self._outbox.flush()


class _Emitted:
    """`Outlet` for one batch."""

    __slots__ = ("_batch", "_lane")

    def __init__(self, lane: Lane, batch: list[Generation]) -> None:
        self._lane = lane
        self._batch = batch

    def __call__(self, index: int, token: int, chance: Chance | None = None) -> bool:
        return self._lane.emit(self._batch[index], token, chance)

    def fail(self, index: int, error: Exception) -> None:
        self._lane.fail(self._batch[index], error)

    def flush(self) -> None:
        self._lane.flush()
