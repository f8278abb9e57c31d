"""Continuous batching: a row joins the running batch at its next step, and leaves it with its own last token."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from dockyard.domain.batching import FIRST_PACE_S, PATIENCE
from dockyard.engines.base import Chance, Generation, Row
from dockyard.engines.failures import translated
from dockyard.engines.outbox import Outbox

_NEW = 0.2  # weight of the last step in the pace


class Seat:
    """A row that runs, as the engine's thread knows it. `extra`: beyond a full batch."""

    __slots__ = ("_outbox", "ended", "extra", "generation")

    def __init__(self, generation: Generation, outbox: Outbox, *, extra: bool) -> None:
        self.generation = generation
        self.extra = extra
        self.ended = False
        self._outbox = outbox
        outbox.begin(generation)

    @property
    def row(self) -> Row:
        return self.generation.row

    @property
    def cancelled(self) -> bool:
        return self.generation.cancelled

    def take(self, token: int, chance: Chance | None = None) -> bool:
        """True when the row must stop."""
        self.ended = self._outbox.take(self.generation, token, chance)
        return self.ended

    def flush(self) -> None:
        """The loop need not wait for the end of the step to hear of what was taken."""
        self._outbox.flush()

    def end(self, error: BaseException | None = None) -> None:
        """Idempotent."""
        self.ended = True
        self._outbox.end(self.generation, error)


class InFlight(Protocol):
    """A model and the rows that it computes; for the engine's thread alone."""

    def join(self, seats: Sequence[Seat]) -> None:
        """Take these in. Each gets its first token from one of the next steps."""
        ...

    def step(self) -> bool:
        """Blocks for a step: a token for each row whose prompt has been read, or parts of prompts, or both. Whether it
        was tokens alone.
        """
        ...

    def clear(self) -> None:
        """Forget all rows."""
        ...


class Continuous:
    """The queue in front of an `InFlight`, which runs on one thread.

    At most `batch_size` rows run at once, first come, first served. `extra` seats are for rows that have waited long
    for what they are: a short row behind long ones need not wait for them, and saturation stays what it was.
    """

    def __init__(
        self,
        in_flight: InFlight,
        *,
        batch_size: int,
        extra: int,
        eos_token_ids: frozenset[int],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.largest_batch = 0
        self._in_flight = in_flight
        self._batch_size = batch_size
        self._extra = extra
        self._now = now
        self._outbox = Outbox(eos_token_ids)
        self._changed = threading.Condition()  # guards these three:
        self._waiting: dict[Generation, float] = {}  # in their order, with the time at which they came
        self._seats: list[Seat] = []  # the thread replaces it
        self._closed = False
        self._thread: threading.Thread | None = None
        self._pace_s = FIRST_PACE_S  # seconds of a step; the thread's

    @property
    def running(self) -> int:
        return sum(not seat.generation.ended for seat in self._seats)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, row: Row) -> Generation:
        self._outbox.use_this_loop()
        generation = Generation(row, self._forget)
        with self._changed:
            if self._closed:
                generation.cancel()
                return generation
            self._waiting[generation] = self._now()
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
                self._thread.start()
        return generation

    def close(self) -> None:
        """Cancel all rows and wait for the thread, a step at most: an interpreter must not end under native code."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            rows = [*self._waiting, *(seat.generation for seat in self._seats)]
        for generation in rows:
            generation.cancel()
        if self._thread is not None:
            self._thread.join()

    def _forget(self, generation: Generation) -> None:
        """A waiting row that was cancelled gives up its place; a running one is dropped at its next token."""
        with self._changed:
            self._waiting.pop(generation, None)

    # On the thread

    def _serve(self) -> None:
        while (new := self._admit()) is not None:
            began = self._now()
            try:
                self._in_flight.join(new)
                if self._in_flight.step():
                    self._pace_s += _NEW * (self._now() - began - self._pace_s)
            # Whatever the library throws is the answer of these rows, no more; a panic of Rust's is no Exception.
            except BaseException as failure:  # noqa: BLE001
                error = translated(failure, "the generation")
                for seat in self._seats:
                    seat.end(error)
                self._outbox.flush()
                self._in_flight.clear()
            self._outbox.flush()

    def _admit(self) -> list[Seat] | None:
        """Seat whoever may come in; wait while there is nobody. None: closed."""
        with self._changed:
            self._seats = [seat for seat in self._seats if not seat.ended]
            while not (self._closed or self._seats or self._waiting):
                self._changed.wait()
            if self._closed:
                return None
            new = self._seated()
            self._seats = [*self._seats, *new]
            for seat in new:
                del self._waiting[seat.generation]
        self.largest_batch = max(self.largest_batch, sum(not seat.extra for seat in self._seats))
        return new

    def _seated(self) -> list[Seat]:
        """Of those who wait, whoever has a seat now."""
        extra = sum(seat.extra for seat in self._seats)
        regular = len(self._seats) - extra
        now = self._now()
        new: list[Seat] = []
        for generation, since in tuple(self._waiting.items()):
            if regular < self._batch_size:
                regular += 1
                new.append(Seat(generation, self._outbox, extra=False))
            elif extra < self._extra and now - since >= PATIENCE * self._pace_s * generation.row.max_new:
                extra += 1
                new.append(Seat(generation, self._outbox, extra=True))
        return new
