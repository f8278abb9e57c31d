"""What engines in front of a blocking library share: the cohorts, and what the worker asks of them."""

from collections.abc import Callable, Sequence

from dockyard.domain.batching import reserve_rows
from dockyard.domain.card import Family
from dockyard.engines.base import Generation, Row
from dockyard.engines.cohorts import Cohorts, Pick
from dockyard.engines.lane import RunBatch
from dockyard.errors import Failed
from dockyard.protocols.generation import WorkerSpec


class BatchedEngine:
    """A subclass loads its model and then calls `_begin` with the function that runs one batch.

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
        self._cohorts: Cohorts | None = None

    @property
    def largest_batch(self) -> int:
        return self._cohorts.largest_batch if self._cohorts else 0

    @property
    def running(self) -> int:
        return self._cohorts.running if self._cohorts else 0

    @property
    def waiting(self) -> int:
        return self._cohorts.waiting if self._cohorts else 0

    def submit(self, row: Row) -> Generation:
        if self._cohorts is None:
            raise Failed("the engine has no model yet: load() comes before submit()")
        return self._cohorts.submit(row)

    def close(self) -> None:
        if self._cohorts is not None:
            self._cohorts.close()

    def _begin(
        self, run_batch: RunBatch, pick: Pick, on_form: Callable[[Sequence[Generation]], None] = lambda _: None
    ) -> None:
        """`pick`: which rows may share a batch. `on_form`: told of each batch, on the loop, before it runs."""
        self._cohorts = Cohorts(
            run_batch,
            batch_size=self._spec.max_batch_size,
            eos_token_ids=self.eos_token_ids,
            pick=pick,
            lanes=self._lanes,
            on_form=on_form,
        )
