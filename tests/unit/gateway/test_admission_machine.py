"""Admission under any order of events: counts stay exact, nobody overtakes, nobody is forgotten."""

import asyncio
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule
from tests.unit.gateway.test_admission import Turned, replica, route, settle

from dockyard.errors import DockyardError
from dockyard.gateway.admission import Admission
from dockyard.gateway.pool import Lease

LIMIT = 4
names = st.sampled_from(["a", "b", "c"])


class AdmissionMachine(RuleBasedStateMachine):
    """The model: who holds a place where, and who waits in which order."""

    tasks = Bundle("tasks")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = Turned()
        self.gate = Admission(self.clock, queue_limit=LIMIT, later=self.clock.later)
        self.pool = self.gate.publish(route())
        self.routed: dict[str, int] = {}
        self.waiting: list[asyncio.Task[Lease]] = []
        self.returning: list[asyncio.Task[Lease]] = []
        self.held: list[tuple[asyncio.Task[Lease], Lease]] = []
        self.failed: set[str] = set()

    def teardown(self) -> None:
        for task in (*self.waiting, *self.returning):
            task.cancel()
        self._run(settle())
        self.loop.close()

    @rule(target=tasks, returning=st.booleans())
    def take(self, returning: bool) -> Any:
        queue = self.returning if returning else self.waiting
        full = not returning and len(queue) >= LIMIT
        task = self._run(self._start(returning))
        if task.done() and task.exception() is not None:
            assert full or self.pool.route is None
            return multiple()
        assert not (full and not task.done())
        queue.append(task)
        self._seat()
        return task

    @rule(task=consumes(tasks), broken=st.booleans())
    def leave(self, task: asyncio.Task[Lease], broken: bool) -> None:
        """Give back a place, or give up waiting."""
        for entry in self.held:
            if entry[0] is task:
                self.held.remove(entry)
                if broken:
                    entry[1].failed()
                    self.failed.add(entry[1].replica.replica_id)
                else:
                    entry[1].accepted()
                    entry[1].finish()
                    self.failed.discard(entry[1].replica.replica_id)
                self._run(self._release(entry[1]))
                break
        else:
            task.cancel()
            self._run(settle())
            self.waiting = [other for other in self.waiting if other is not task]
            self.returning = [other for other in self.returning if other is not task]
        self._seat()

    @rule(task=consumes(tasks))
    def leave_in_the_step_of_a_release(self, task: asyncio.Task[Lease]) -> None:
        """The hand-over and the cancellation of the one who is handed to, in one step."""
        if task.done() or not self.held:
            return
        _, lease = self.held.pop(0)
        lease.release()
        task.cancel()
        self._run(settle())
        self.waiting = [other for other in self.waiting if other is not task]
        self.returning = [other for other in self.returning if other is not task]
        self._seat()

    @rule(replicas=st.dictionaries(names, st.integers(1, 3), max_size=3))
    def publish(self, replicas: dict[str, int]) -> None:
        self.routed = replicas
        self.failed.clear()
        self.pool = self.gate.publish(route(*(replica(name, size) for name, size in replicas.items())))
        self._run(settle())
        self._seat()

    @precondition(lambda self: self.pool.route is not None)
    @rule()
    def withdraw(self) -> None:
        self.routed = {}
        self.gate.withdraw("dp-1")
        self._run(settle())
        for task in (*self.waiting, *self.returning):
            assert isinstance(task.exception(), DockyardError)
        self.waiting, self.returning = [], []

    @rule(seconds=st.sampled_from([0.01, 0.06, 2.0]))
    def wait(self, seconds: float) -> None:
        self.clock.turn(seconds)
        self._run(settle())
        self._seat()

    @invariant()
    def the_counts_are_exact(self) -> None:
        load = self.gate.load("dp-1")
        assert load.in_flight == len(self.held)
        assert load.queued == len(self.waiting) + len(self.returning)
        for name in ("a", "b", "c"):
            here = sum(1 for _, lease in self.held if lease.replica.replica_id == name)
            assert self.gate.open_requests(name) == here

    @invariant()
    def nobody_waits_beside_a_free_place(self) -> None:
        if not (self.waiting or self.returning):
            return
        for name, capacity in self.routed.items():
            if name not in self.failed:
                assert self.gate.open_requests(name) >= capacity

    def _seat(self) -> None:
        """Move those who got a place; they must be the first of their queue, and no replica may be overfull."""
        for queue in (self.returning, self.waiting):
            got = [task for task in queue if task.done()]
            assert got == queue[: len(got)]
            assert not (got and queue is self.waiting and self.returning)
            del queue[: len(got)]
            for task in got:
                lease = task.result()
                self.held.append((task, lease))
                name = lease.replica.replica_id
                assert self.gate.open_requests(name) <= self.routed[name]

    async def _start(self, returning: bool) -> asyncio.Task[Lease]:
        task = asyncio.create_task(self.pool.take(returning=returning))
        await settle()
        return task

    async def _release(self, lease: Lease) -> None:
        lease.release()
        await settle()

    def _run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)


AdmissionMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAdmission = AdmissionMachine.TestCase
