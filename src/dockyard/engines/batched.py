"""What engines in front of a blocking library share: the cohorts, and what the worker asks of them."""

from collections.abc import Callable, Hashable

from dockyard.domain.card import Family
from dockyard.engines.base import Generation, Row
from dockyard.engines.cohorts import Cohorts, RunBatch
from dockyard.errors import Failed
from dockyard.protocols.generation import WorkerSpec


class BatchedEngine:
    """A subclass loads its model and then calls `_begin` with the function that runs one batch."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.capacity = spec.max_batch_size
        self.eos_token_ids = frozenset(spec.eos_token_ids)
        self._spec = spec
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

    def _begin(self, run_batch: RunBatch, key: Callable[[Row], Hashable]) -> None:
        """`key`: what must be equal within a batch."""
        self._cohorts = Cohorts(run_batch, capacity=self.capacity, eos_token_ids=self.eos_token_ids, key=key)
