"""Static batching for engines that cannot add to a running batch: what waits when the thread is free starts at once.

The loop forms the batches, one thread runs them; rows stop one by one, the batch ends with its last row.
"""

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence

from dockyard.engines.base import Generation, Row
from dockyard.engines.failures import translated

# emit(index of the row in the batch, token id) → True when that row must stop. For the engine's thread.
Emit = Callable[[int, int], bool]
RunBatch = Callable[[Sequence[Row], Emit], None]

# After a batch of n rows its clients come back within moments of each other. Starting with the first one alone would
# make the n - 1 others wait for a whole generation: batches of 1 and n - 1 in turn. On a busy machine the moments add
# up to 11 ms for ten clients, so the wait grows with what it can save: after a batch of 2 s it is 40 ms.
_LINGER_S = 0.004
_LINGER_SHARE = 0.02  # of the time that the batch took
_LINGER_CEILING_S = 0.05


class Cohorts:
    """The queue in front of one blocking `run_batch`.

    A batch holds at most `capacity` rows of one `key` (what must be equal within a batch). The row that has waited
    longest chooses the key, so nobody starves; the others of that key go with it in their order. An idle engine starts
    at once; right after a batch, a next one of its key waits at most `linger_s`, or a fiftieth of the batch's time, for
    as many rows as were here together meanwhile.
    """

    def __init__(
        self,
        run_batch: RunBatch,
        *,
        capacity: int,
        eos_token_ids: frozenset[int],
        key: Callable[[Row], Hashable],
        linger_s: float = _LINGER_S,
    ) -> None:
        self.largest_batch = 0
        self._run_batch = run_batch
        self._capacity = capacity
        self._eos = eos_token_ids
        self._key = key
        self._waiting: deque[Generation] = deque()
        self._batch: list[Generation] = []
        self._linger_s = linger_s
        self._lingers_for = 0  # rows; 0 when it does not linger
        self._most_here = 0  # rows that ran and waited at once since the batch was formed
        self._formed_at = 0.0
        self._forming: asyncio.Handle | None = None
        self._work: queue.SimpleQueue[list[Generation] | None] = queue.SimpleQueue()
        # What the thread has for the loop; one hop of the loop carries all that is there.
        self._out: deque[tuple[Generation, int | None, BaseException | None]] = deque()
        self._hop_pending = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)

    @property
    def running(self) -> int:
        return sum(not generation.ended for generation in self._batch)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, row: Row) -> Generation:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._thread.start()
        generation = Generation(row, self._forget)
        self._waiting.append(generation)
        self._most_here = max(self._most_here, self.running + self.waiting)
        if self._lingers_for == 0 or len(self._waiting) >= self._lingers_for:
            self._form_soon()
        return generation

    def close(self) -> None:
        """Cancel all rows and wait for the thread, a step at most: an interpreter must not end under native code."""
        for generation in (*self._waiting, *self._batch):
            generation.cancel()
        self._work.put(None)
        if self._thread.is_alive():
            self._thread.join()

    # On the loop

    def _forget(self, generation: Generation) -> None:
        """A waiting row that was cancelled gives up its place; a running one is dropped by `_emit`."""
        if generation in self._waiting:
            self._waiting.remove(generation)

    def _form_soon(self) -> None:
        """Form the next batch after the events of this pass of the loop, so that a burst starts as one batch."""
        if self._loop is None or self._batch or (self._forming and not self._lingers_for):
            return
        if self._forming:
            self._forming.cancel()
        self._lingers_for = 0
        self._forming = self._loop.call_soon(self._form)

    def _linger(self, after: list[Generation]) -> None:
        rows = min(self._capacity, self._most_here)
        of_another_key = bool(self._waiting) and self._key(self._waiting[0].row) != self._key(after[0].row)
        if self._loop is None or len(self._waiting) >= rows or of_another_key:
            self._form_soon()
            return
        took_s = self._loop.time() - self._formed_at
        wait_s = max(self._linger_s, min(_LINGER_CEILING_S, _LINGER_SHARE * took_s))
        self._lingers_for = rows
        self._forming = self._loop.call_later(wait_s, self._form)

    def _form(self) -> None:
        self._forming = None
        self._lingers_for = 0
        if self._batch or not self._waiting:
            return
        key = self._key(self._waiting[0].row)
        others: deque[Generation] = deque()
        for generation in self._waiting:
            fits = len(self._batch) < self._capacity and self._key(generation.row) == key
            (self._batch if fits else others).append(generation)
        self._waiting = others
        self._most_here = len(self._batch) + len(others)
        self._formed_at = self._loop.time() if self._loop is not None else 0.0
        self.largest_batch = max(self.largest_batch, len(self._batch))
        self._work.put(self._batch)

    def _deliver(self) -> None:
        """Hand what the thread has made to its rows, the tokens of several steps together."""
        self._hop_pending = False  # before the reading: whatever comes after it gets a hop of its own
        tokens: dict[Generation, list[int]] = {}
        ends: list[tuple[Generation, BaseException | None]] = []
        while self._out:
            generation, token, error = self._out.popleft()
            if token is None:
                ends.append((generation, error))
            else:
                tokens.setdefault(generation, []).append(token)
        for generation, ids in tokens.items():
            generation.deliver(ids)
        for generation, error in ends:
            generation.end(error)

    def _batch_done(self) -> None:
        self._deliver()
        batch, self._batch = self._batch, []
        self._linger(batch)

    # On the engine's thread

    def _serve(self) -> None:
        while (batch := self._work.get()) is not None:
            self._run(batch)
            self._call_loop(self._batch_done)

    def _run(self, batch: list[Generation]) -> None:
        left = {index: generation.row.max_new for index, generation in enumerate(batch)}
        error: BaseException | None = None
        try:
            self._run_batch([generation.row for generation in batch], lambda i, t: self._emit(batch, left, i, t))
        except Exception as failure:  # noqa: BLE001  whatever the library throws is the answer of these rows, no more
            error = translated(failure, "the generation")
        for index in left:
            self._out.append((batch[index], None, error))

    def _emit(self, batch: list[Generation], left: dict[int, int], index: int, token: int) -> bool:
        """Take one token. A row stops at its end of sequence, at its `max_new`, or when nobody wants it any more."""
        if index not in left:
            return True
        generation = batch[index]
        left[index] -= 1
        self._out.append((generation, token, None))
        stops = token in self._eos or left[index] == 0 or generation.cancelled
        if stops:
            del left[index]
            self._out.append((generation, None, None))
        if not self._hop_pending:
            self._hop_pending = True
            self._call_loop(self._deliver)
        return stops

    def _call_loop(self, callback: Callable[[], None]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback)
