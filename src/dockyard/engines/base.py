"""What every engine is: token ids in, token ids out, one `Generation` per row. Text is not its business."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from dockyard.engines.constraint import Constraint, Constraints


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. `temperature` 0, `top_p` 0 or `top_k` 1 is greedy."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 50
    seed: int | None = None

    @property
    def greedy(self) -> bool:
        return self.temperature == 0 or self.top_p == 0 or self.top_k == 1


@dataclass(frozen=True, slots=True)
class Row:
    """One continuation to make: at most `max_new` (≥ 1) tokens after `prompt` and the already known `resume`.

    `prefilled`: the same of the generation that `resume` came from, where it had one. `constraint`: what the output,
    `resume` and all, must match. `logprobs`: with each token, its own and those of so many of the most probable ones.
    """

    prompt: Sequence[int]
    max_new: int
    sampling: Sampling
    resume: Sequence[int] = ()
    prefilled: int | None = None
    constraint: Constraint | None = None
    logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class Chance:
    """How probable a token was to the model, as logarithms: before temperature, top-k, top-p and constraint.

    `top`: the most probable tokens at its place, the first one first.
    """

    logprob: float
    top: Sequence[tuple[int, float]] = ()


class Generation:
    """One row's output: iterate for lists of new ids, an end-of-sequence id last if the model ended by itself.
    `chances` are those of the ids that came last, where the row asks for them.

    All of it belongs to the event loop, but `cancelled`, which an engine's thread may read. Leaving the iteration
    early needs `cancel()`; then the row leaves the batch at the next step.

    `prefilled`, known before the first token: how many tokens of the prompt the engine computed at once, where the last
    digits of what follows depend on that and it is not the usual all but one. Whoever resumes passes it on (`Row`).
    """

    __slots__ = (
        "_chances",
        "_ended",
        "_error",
        "_ids",
        "_on_cancel",
        "_waiter",
        "cancelled",
        "chances",
        "prefilled",
        "row",
    )

    def __init__(self, row: Row, on_cancel: Callable[["Generation"], None]) -> None:
        self.row = row
        self.cancelled = False
        self.prefilled: int | None = None
        self.chances: list[Chance] = []
        self._on_cancel = on_cancel
        self._ids: list[int] = []
        self._chances: list[Chance] = []
        self._ended = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def ended(self) -> bool:
        return self._ended

    def cancel(self) -> None:
        """Nobody wants the rest. Idempotent; nothing after an end."""
        if self.cancelled or self._ended:
            return
        self.cancelled = True
        self.end()
        self._on_cancel(self)

    def deliver(self, ids: Sequence[int], chances: Sequence[Chance] = ()) -> None:
        """For the engine: new tokens. Ignored after the end."""
        if not self._ended:
            self._ids.extend(ids)
            if chances:
                self._chances.extend(chances)
            self._wake()

    def end(self, error: BaseException | None = None) -> None:
        """For the engine: no more tokens; with `error`, the iteration raises it after what was delivered."""
        if not self._ended:
            self._ended = True
            self._error = error
            self._wake()

    def __aiter__(self) -> "Generation":
        return self

    async def __anext__(self) -> list[int]:
        while not self._ids:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        ids, self._ids = self._ids, []
        if self._chances:
            self.chances, self._chances = self._chances, []
        return ids

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Engine(Protocol):
    """A model in memory. Built and loaded on a thread of the worker's, used from its event loop.

    `name`: as in the registry. `capacity`: rows that run at once. `largest_batch`: rows of the largest batch so far.
    `constraints`: None if it knows neither constraints nor logprobs.
    """

    name: str
    can_seed: bool
    constraints: Constraints | None
    capacity: int
    eos_token_ids: frozenset[int]

    @property
    def largest_batch(self) -> int: ...

    @property
    def running(self) -> int:
        """Rows in the batch that runs now."""
        ...

    @property
    def waiting(self) -> int: ...

    def load(self) -> None:
        """Read the artifact; blocks. Raises `errors.Failed` with OUT_OF_MEMORY, ARTIFACT_CORRUPT or ENGINE_FAILED."""
        ...

    def submit(self, row: Row) -> Generation:
        """Start, or queue, one row. Call on the event loop, after `load`."""
        ...

    def close(self) -> None:
        """End what runs and let the engine's thread go. Idempotent."""
        ...


@runtime_checkable
class TellsItsStart(Protocol):
    """An engine whose `load` takes so long that it tells how far it is.

    `tell_start` is set by whoever loads it, and called on any thread: the share that is over, and what comes now.
    """

    tell_start: Callable[[float, str], object]
