"""What engines in front of a blocking library share: how rows become batches, and what the worker asks of them."""

from collections.abc import Callable, Sequence
from typing import Protocol

from dockyard.domain.batching import reserve_rows
from dockyard.domain.card import Family
from dockyard.engines.base import Generation, Row
from dockyard.engines.cohorts import Cohorts, Pick
from dockyard.engines.continuous import Continuous, InFlight
from dockyard.engines.lane import RunBatch
from dockyard.errors import Failed
from dockyard.protocols.generation import WorkerSpec


class Batches(Protocol):
    """Rows in front of a model that computes several at a time."""

    @property
    def largest_batch(self) -> int: ...

    @property
    def running(self) -> int: ...

    @property
    def waiting(self) -> int: ...

    def submit(self, row: Row) -> Generation: ...

    def close(self) -> None: ...


class BatchedEngine:
    """A subclass loads its model and then calls `_begin` with the function that runs one batch, or `_begin_continuous`
    with a model that lets rows in at each step.

    `lanes`: how many batches, each of `max_batch_size` rows at most, it runs at once, the reserve's apart. On a CPU the
    reserve's rows come on top. A GPU's memory is planned for so many rows and no more: there they are among them.
    """

    def __init__(self, spec: WorkerSpec, lanes: int = 1) -> None:
        self.capacity = spec.max_batch_size * lanes
        if spec.device == "cpu":
            self.capacity += reserve_rows(spec.max_batch_size)
        self.eos_token_ids = frozenset(spec.eos_token_ids)
        self._spec = spec
        self._lanes = lanes
        self._decoder_only = spec.family == Family.DECODER
        self._batches: Batches | None = None

    @property
    def largest_batch(self) -> int:
        return self._batches.largest_batch if self._batches else 0

    @property
    def running(self) -> int:
        return self._batches.running if self._batches else 0

    @property
    def waiting(self) -> int:
        return self._batches.waiting if self._batches else 0

    def submit(self, row: Row) -> Generation:
        if self._batches is None:
            raise Failed("the engine has no model yet: load() comes before submit()")
        return self._batches.submit(row)

    def close(self) -> None:
        if self._batches is not None:
            self._batches.close()

    def _begin(
        self, run_batch: RunBatch, pick: Pick, on_form: Callable[[Sequence[Generation]], None] = lambda _: None
    ) -> None:
        """`pick`: which rows may share a batch. `on_form`: told of each batch, on the loop, before it runs."""
        self._batches = Cohorts(
            run_batch,
            batch_size=self._spec.max_batch_size,
            eos_token_ids=self.eos_token_ids,
            pick=pick,
            lanes=self._lanes,
            on_form=on_form,
        )

    def _begin_continuous(self, in_flight: InFlight) -> None:
        """`in_flight` has at most `capacity` rows at once."""
        self._batches = Continuous(
            in_flight,
            batch_size=self._spec.max_batch_size,
            extra=self.capacity - self._spec.max_batch_size,
            eos_token_ids=self.eos_token_ids,
        )
