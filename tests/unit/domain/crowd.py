"""A deployment under load in virtual time: requests arrive, wait, run and end; replicas start, serve and leave."""

import heapq
import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from dockyard.domain.autoscaling import Demand, begin, decide
from dockyard.domain.spec import Scaling

Service = Callable[[random.Random], float]  # seconds that a request runs


@dataclass(frozen=True, slots=True)
class Change:
    """The autoscaler went from `before` to `after` replicas at `at_s`."""

    at_s: float
    before: int
    after: int


@dataclass(slots=True)
class Outcome:
    changes: list[Change] = field(default_factory=list[Change])
    replicas: int = 0  # at the end
    served: int = 0
    never_ready: int = 0  # replicas that were taken away before they had served anybody

    def turns(self, from_s: float, to_s: float) -> int:
        """How often it went the other way than before, between two instants."""
        inside = [change for change in self.changes if from_s <= change.at_s < to_s]
        rising = [change.after > change.before for change in inside]
        return sum(1 for before, after in itertools.pairwise(rising) if before != after)


def run(arrivals: Iterable[float], service: Service, scaling: Scaling, start_s: float, seed: int = 0) -> Outcome:
    """Serve `arrivals` (instants, ascending) with replicas that take `start_s` to start, until all is quiet again."""
    return _Crowd(service, scaling, start_s, seed).run(arrivals)


class _Crowd:
    def __init__(self, service: Service, scaling: Scaling, start_s: float, seed: int) -> None:
        self._service = service
        self._scaling = scaling
        self._start_s = start_s
        self._random = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._history = begin(scaling, scaling.min_replicas, 0.0)
        self._now = 0.0
        self._wake_at = 0.0
        self._queued = self._running = 0
        self._ready = scaling.min_replicas
        self._starting: list[int] = []
        self._outcome = Outcome()

    def run(self, arrivals: Iterable[float]) -> Outcome:
        for at_s in arrivals:
            self._at(at_s, self._arrive)
        while self._events:
            self._now, _, happen = heapq.heappop(self._events)
            happen()
            self._place()
            self._decide()
        self._outcome.replicas = self._ready + len(self._starting)
        return self._outcome

    def _arrive(self) -> None:
        self._queued += 1

    def _end(self) -> None:
        self._running -= 1
        self._outcome.served += 1

    def _place(self) -> None:
        """A replica that leaves finishes what it runs, so what runs may be more than there are places."""
        while self._queued and self._running < self._ready * self._scaling.max_batch_size:
            self._queued -= 1
            self._running += 1
            self._at(self._now + self._service(self._random), self._end)

    def _decide(self) -> None:
        decision = decide(self._scaling, Demand(self._queued, self._running), self._history, self._now)
        self._history = decision.history
        if decision.reason:
            self._outcome.changes.append(Change(self._now, decision.before, decision.desired))
            self._reach(decision.desired)
            self._at(self._now, lambda: None)
        elif decision.wake_at is not None and decision.wake_at != self._wake_at:
            self._wake_at = decision.wake_at
            self._at(decision.wake_at, lambda: None)

    def _reach(self, desired: int) -> None:
        while self._ready + len(self._starting) < desired:
            name = next(self._order)
            self._starting.append(name)
            self._at(self._now + self._start_s, lambda name=name: self._become_ready(name))
        while self._ready + len(self._starting) > desired:
            if self._starting:
                self._starting.pop()
                self._outcome.never_ready += 1
            else:
                self._ready -= 1

    def _become_ready(self, name: int) -> None:
        if name in self._starting:
            self._starting.remove(name)
            self._ready += 1

    def _at(self, at_s: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at_s, next(self._order), happen))
