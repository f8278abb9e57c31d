"""One thread that runs batches, one after the other, and hands their tokens to the event loop."""

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from dockyard.engines.base import Chance, Generation, Row
from dockyard.engines.failures import translated


class Emit(Protocol):
    """For the engine's thread; `index` is the row's in the batch."""

    def __call__(self, index: int, token: int, chance: Chance | None = None) -> bool:
        """True when that row must stop."""
        ...

    def fail(self, index: int, error: Exception) -> None:
        """End that row, and no other."""
        ...


RunBatch = Callable[[Sequence[Row], Emit], None]

_PACE_S = 0.05  # taken for a step as long as there was none


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
        self._told_at = 0.0
        self._last_pace_s = _PACE_S
        self._run_batch = run_batch
        self._eos = eos_token_ids
        self._on_done = on_done
        self._work: queue.SimpleQueue[list[Generation] | None] = queue.SimpleQueue()
        # What the thread has for the loop; one hop of the loop carries all that is there.
        self._out: deque[tuple[Generation, int | None, Chance | BaseException | None]] = deque()
        self._hop_pending = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lasting = lasting
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> int:
        return sum(not generation.ended for generation in self.batch)

    @property
    def pace_s(self) -> float:
        """Seconds for a step of the batch that runs, or of the last one while nothing is known of this one."""
        if self._told_at <= self.formed_at:
            return self._last_pace_s
        return (self._told_at - self.formed_at) / max(1, self._steps)

    def begin(self, batch: list[Generation]) -> None:
        """Run `batch`; the lane must be idle."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self.batch = batch
        self._last_pace_s = self.pace_s
        self.formed_at = self._loop.time()
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

    # On the loop

    def _deliver(self) -> None:
        """Hand what the thread has made to its rows, the tokens of several steps together."""
        self._hop_pending = False  # before the reading: whatever comes after it gets a hop of its own
        tokens: dict[Generation, list[int]] = {}
        chances: dict[Generation, list[Chance]] = {}
        ends: list[tuple[Generation, BaseException | None]] = []
        while self._out:
            generation, token, told = self._out.popleft()
            if not isinstance(told, Chance) and token is None:
                ends.append((generation, told))
            elif token is not None:
                tokens.setdefault(generation, []).append(token)
                if isinstance(told, Chance):
                    chances.setdefault(generation, []).append(told)
        if tokens and self._loop is not None:
            self._told_at = self._loop.time()
        for generation, ids in tokens.items():
            generation.deliver(ids, chances.get(generation, ()))
        for generation, error in ends:
            generation.end(error)

    def _finish(self) -> None:
        self._deliver()
        batch, self.batch = self.batch, []
        self._on_done(self, batch)

    # On the thread

    def _serve(self) -> None:
        while (batch := self._work.get()) is not None:
            self._serve_one(batch)

    def _serve_one(self, batch: list[Generation]) -> None:
        self._run(batch)
        self._call_loop(self._finish)

    def _run(self, batch: list[Generation]) -> None:
        left = {index: generation.row.max_new for index, generation in enumerate(batch)}
        error: BaseException | None = None
        try:
            self._run_batch([generation.row for generation in batch], _Emitted(self, batch, left))
        except Exception as failure:  # noqa: BLE001  whatever the library throws is the answer of these rows, no more
            error = translated(failure, "the generation")
        for index in left:
            self._out.append((batch[index], None, error))

    def emit(
        self, batch: list[Generation], left: dict[int, int], index: int, token: int, chance: Chance | None
    ) -> bool:
        """Take one token. A row stops at its end of sequence, at its `max_new`, or when nobody wants it any more."""
        if index not in left:
            return True
        generation = batch[index]
        left[index] -= 1
        self._steps = max(self._steps, generation.row.max_new - left[index])
        self._out.append((generation, token, chance))
        stops = token in self._eos or left[index] == 0 or generation.cancelled
        if stops:
            del left[index]
            self._out.append((generation, None, None))
        self._hop()
        return stops

    def fail(self, batch: list[Generation], left: dict[int, int], index: int, error: Exception) -> None:
        if left.pop(index, None) is not None:
            self._out.append((batch[index], None, error))
            self._hop()

    def _hop(self) -> None:
        if not self._hop_pending:
            self._hop_pending = True
            self._call_loop(self._deliver)

    def _call_loop(self, callback: Callable[[], None]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback)


class _Emitted:
    """`Emit` for one batch; `left`: tokens that each row that goes on may still have."""

    __slots__ = ("_batch", "_lane", "_left")

    def __init__(self, lane: Lane, batch: list[Generation], left: dict[int, int]) -> None:
        self._lane = lane
        self._batch = batch
        self._left = left

    def __call__(self, index: int, token: int, chance: Chance | None = None) -> bool:
        return self._lane.emit(self._batch, self._left, index, token, chance)

    def fail(self, index: int, error: Exception) -> None:
        self._lane.fail(self._batch, self._left, index, error)
