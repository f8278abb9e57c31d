"""Static batching for engines that cannot add to a running batch: what waits when a lane is free starts at once.

The loop forms the batches, the lanes' threads run them. ADR 9 has the measurements behind the numbers.
"""

import asyncio
from collections.abc import Callable, Collection, Hashable, Sequence

from dockyard.domain.batching import PATIENCE, reserve_rows
from dockyard.engines.base import Generation, Row
from dockyard.engines.lane import Lane, RunBatch

# pick(rows in their order, at most so many) → indices of those that go as one batch, of which 0 is always one.
Pick = Callable[[Sequence[Row], int], list[int]]

# Requests that were sent at once arrive one by one. Starting with the first one alone would make the others wait for a
# whole generation, so a batch is formed when nothing came for a moment. It is 2 % of a generation of eight tokens.
_QUIET_S = 0.002
_QUIET_CEILING_S = 0.015  # they may never stop coming
# After a batch of n rows its clients come back within moments of each other. On a busy machine the moments add up to
# 11 ms for ten clients, so the wait grows with what it can save: after a batch of 2 s it is 40 ms.
_LINGER_S = 0.004
_LINGER_SHARE = 0.02  # of the time that the batch took
_LINGER_CEILING_S = 0.05


def by_key(key: Callable[[Row], Hashable]) -> Pick:
    """Rows go together that have the first one's key."""

    def pick(rows: Sequence[Row], limit: int) -> list[int]:
        wanted = key(rows[0])
        return [index for index, row in enumerate(rows) if key(row) == wanted][:limit]

    return pick


class Cohorts:
    """The queue in front of a blocking `run_batch`, which is called on `lanes` + 1 threads at most.

    A batch holds at most `batch_size` rows of those that `pick` lets go together. The row that has waited longest is in
    the next batch, so nobody starves. Rows that do not go with it take the next free lane, if there is one.

    The lane beyond is the reserve: a short row behind long ones need not wait for them.
    """

    def __init__(
        self,
        run_batch: RunBatch,
        *,
        batch_size: int,
        eos_token_ids: frozenset[int],
        pick: Pick,
        lanes: int = 1,
        on_form: Callable[[Sequence[Generation]], None] = lambda _: None,
        quiet_s: float = _QUIET_S,
        linger_s: float = _LINGER_S,
        patience: float = PATIENCE,
    ) -> None:
        self.largest_batch = 0
        self._batch_size = batch_size
        self._pick = pick
        self._on_form = on_form
        self._waiting: dict[Generation, float] = {}  # in their order, with the loop's time at which they came
        self._lanes = [Lane(run_batch, eos_token_ids=eos_token_ids, on_done=self._batch_done) for _ in range(lanes)]
        self._reserve = Lane(run_batch, eos_token_ids=eos_token_ids, on_done=self._reserve_done, lasting=False)
        self._quiet_s = quiet_s
        self._linger_s = linger_s
        self._patience = patience
        self._timer: asyncio.TimerHandle | None = None  # set while a batch is being gathered, with these three:
        self._wanted = 0  # rows that end the gathering
        self._form_by = 0.0
        self._lingers = False
        self._relief: asyncio.TimerHandle | None = None

    @property
    def running(self) -> int:
        return sum(lane.running for lane in (*self._lanes, self._reserve))

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, row: Row) -> Generation:
        generation = Generation(row, self._forget)
        self._waiting[generation] = asyncio.get_running_loop().time()
        here = self.running + self.waiting
        for lane in self._lanes:
            lane.most_here = max(lane.most_here, here)
        if self._timer is not None and len(self._waiting) >= self._wanted:
            self._form()
        elif not self._lingers and self._idle:
            self._gather()
        else:
            self._expect_relief()
        return generation

    def close(self) -> None:
        """Cancel all rows and wait for the threads."""
        self._stop_timer()
        if self._relief is not None:
            self._relief.cancel()
        for generation in tuple(self._waiting):
            generation.cancel()
        for lane in (*self._lanes, self._reserve):
            lane.close()

    def _forget(self, generation: Generation) -> None:
        """A waiting row that was cancelled gives up its place; a running one is dropped by its lane."""
        self._waiting.pop(generation, None)

    # When the next batch is formed

    @property
    def _idle(self) -> list[Lane]:
        return [lane for lane in self._lanes if not lane.batch]

    def _gather(self) -> None:
        """Form a batch once nothing has come for a moment."""
        now = asyncio.get_running_loop().time()
        if self._timer is None:
            self._wanted, self._form_by = self._batch_size * len(self._idle), now + _QUIET_CEILING_S
        self._form_at(min(now + self._quiet_s, self._form_by))

    def _batch_done(self, lane: Lane, batch: Sequence[Generation]) -> None:
        """Form the next batch, or wait for those who were in this one: they come back, if they do, within moments."""
        expected = min(self._batch_size, lane.most_here - self.running)
        lane.most_here = 0
        of_others = bool(self._waiting) and len(self._pick([batch[0].row, next(iter(self._waiting)).row], 2)) < 2
        if len(self._waiting) >= expected or of_others:
            self._form()
            return
        now = asyncio.get_running_loop().time()
        share = _LINGER_SHARE * (now - lane.formed_at)
        self._lingers, self._wanted = True, expected
        self._form_at(now + max(self._linger_s, min(_LINGER_CEILING_S, share)))

    def _form_at(self, when: float) -> None:
        self._drop_timer()
        self._timer = asyncio.get_running_loop().call_at(when, self._form)

    def _stop_timer(self) -> None:
        self._drop_timer()
        self._lingers = False

    def _drop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Who is in it

    def _form(self) -> None:
        self._stop_timer()
        idle = self._idle
        while idle and self._waiting:
            lane = idle[0]
            self._begin(lane, list(self._waiting), self._share(len(self._waiting), len(idle)))
            lane.most_here = self.running + self.waiting
            idle = idle[1:]
        self._expect_relief()

    def _share(self, waiting: int, idle: int) -> int:
        """Rows for the next batch. A full batch spreads over all idle lanes; for fewer rows one stays free."""
        over = idle if waiting >= self._batch_size else max(1, idle - 1)
        return min(self._batch_size, -(-waiting // over))

    def _begin(self, lane: Lane, candidates: Sequence[Generation], limit: int) -> None:
        batch = [candidates[index] for index in self._pick([generation.row for generation in candidates], limit)]
        for generation in batch:
            del self._waiting[generation]
        self._on_form(batch)
        self.largest_batch = max(self.largest_batch, len(batch))
        lane.begin(batch)

    # The reserve

    def _expect_relief(self) -> None:
        """Look again when the first of those who wait will have lost patience, if no lane takes them before."""
        if self._relief is not None:
            self._relief.cancel()
            self._relief = None
        if self._waiting and not self._reserve.batch and not self._idle:
            due = min(self._due().values())
            self._relief = asyncio.get_running_loop().call_at(due, self._relieve)

    def _relieve(self) -> None:
        self._relief = None
        if self._reserve.batch or self._idle:
            return
        now = asyncio.get_running_loop().time()
        if impatient := [generation for generation, due in self._due().items() if due <= now]:
            self._begin(self._reserve, impatient, reserve_rows(self._batch_size))
        else:
            self._expect_relief()

    def _due(self) -> dict[Generation, float]:
        """When those who wait lose patience, at the pace of now."""
        pace_s = max(lane.pace_s for lane in self._lanes)
        patience_s = self._patience * pace_s
        return {waiting: since + patience_s * waiting.row.max_new for waiting, since in self._waiting.items()}

    def _reserve_done(self, _: Lane, __: Collection[Generation]) -> None:
        self._expect_relief()
