"""Admission under any order of events: counts stay exact, keys stay equal, nobody overtakes, nobody is forgotten."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule
from tests.unit.gateway.test_admission import Turned, replica, route, settle

from dockyard.domain.autoscaling import Demand
from dockyard.errors import DockyardError
from dockyard.gateway.admission import Admission
from dockyard.gateway.pool import Lease

LIMIT = 4
names = st.sampled_from(["a", "b", "c"])
keys = st.sampled_from(["k", "l", "m"])


@dataclass(eq=False)
class Request:
    """One request: it waits, or it holds a lease."""

    key: str
    task: asyncio.Task[Lease]
    lease: Lease | None = None


class AdmissionMachine(RuleBasedStateMachine):
    """The model: who holds a place where, and who waits in which order."""

    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = Turned()
        self.told = Demand(0, 0)
        self.gate = Admission(self.clock, queue_limit=LIMIT, later=self.clock.later, on_load=self._tell)
        self.pool = self.gate.publish(route())
        self.routed: dict[str, int] = {}
        self.waiting: list[Request] = []
        self.returning: list[Request] = []
        self.held: list[Request] = []
        self.failed: set[str] = set()

    def teardown(self) -> None:
        for request in (*self.waiting, *self.returning):
            request.task.cancel()
        self._run(settle())
        self.loop.close()

    @rule(target=requests, key=keys)
    def take(self, key: str) -> Any:
        own = sum(1 for request in self.waiting if request.key == key)
        others = {request.key for request in self.waiting} - {key}
        full = len(self.waiting) >= LIMIT and own * (len(others) + 1) >= LIMIT
        request = Request(key, self._run(self._start(key)))
        if request.task.done() and request.task.exception() is not None:
            assert full or self.pool.route is None
            return multiple()
        assert not full
        self.waiting.append(request)
        self._seat()
        return request

    @rule(request=consumes(requests), broken=st.booleans())
    def leave(self, request: Request, broken: bool) -> None:
        """Give back a place, or give up waiting."""
        if request.lease is None:
            self._give_up(request)
            return
        name = request.lease.replica.replica_id
        if broken:
            request.lease.failed()
            self.failed.add(name)
        else:
            self._call(request.lease.accepted)
            self._seat()
            request.lease.finish()
            self.failed.discard(name)
        self.held.remove(request)
        self._call(request.lease.release)
        self._seat()

    @rule(target=requests, request=consumes(requests))
    def lose(self, request: Request) -> Any:
        """The replica breaks, the request wants another one."""
        if request.lease is None:
            return request
        request.lease.failed()
        self.failed.add(request.lease.replica.replica_id)
        self.held.remove(request)
        request.task = self._run(self._start_again(request.lease))
        request.lease = None
        if request.task.done() and request.task.exception() is not None:
            assert self.pool.route is None
            self._run(settle())
            return multiple()
        self.returning.append(request)
        self._seat()
        return request

    @rule(request=consumes(requests))
    def leave_in_the_step_of_a_release(self, request: Request) -> None:
        """The hand-over and the cancellation of the one who is handed to, in one step."""
        if request.lease is not None or not self.held:
            return
        holder = self.held.pop(0)
        assert holder.lease is not None
        holder.lease.release()
        holder.lease = None
        self._give_up(request)

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
        for request in (*self.waiting, *self.returning):
            assert isinstance(request.task.exception(), DockyardError)
        self.waiting, self.returning = [], []

    @rule(seconds=st.sampled_from([0.01, 0.06, 2.0]))
    def wait(self, seconds: float) -> None:
        self.clock.turn(seconds)
        self._run(settle())
        self._seat()

    @invariant()
    def the_counts_are_exact(self) -> None:
        load = self.gate.load("dp-1")
        assert load == Demand(len(self.waiting) + len(self.returning), len(self.held))
        assert load == self.told
        for name in ("a", "b", "c"):
            here = sum(1 for request in self.held if request.lease and request.lease.replica.replica_id == name)
            assert self.gate.open_requests(name) == here

    @invariant()
    def nobody_waits_beside_a_free_place(self) -> None:
        if not (self.waiting or self.returning):
            return
        for name, capacity in self.routed.items():
            if name not in self.failed:
                assert self.gate.open_requests(name) >= capacity

    def _tell(self, deployment_id: str, load: Demand) -> None:
        assert deployment_id == "dp-1"
        assert load != self.told  # a change, each time
        assert load == self.gate.load(deployment_id)
        self.told = load

    def _seat(self) -> None:
        """Move those who got a place, and check that it was their turn."""
        returned = self._seat_from(self.returning)
        seated = self._seat_from(self.waiting)
        assert returned == self._first(returned, self.returning)
        assert not (seated and self.returning)
        held = Counter(request.key for request in self.held)
        for key in {request.key for request in seated}:
            of_key = [request for request in self.waiting if request.key == key]
            mine = [request for request in seated if request.key == key]
            assert mine == self._first(mine, of_key)
            assert all(held[request.key] >= held[key] - 1 for request in self.waiting)

    def _seat_from(self, queue: list[Request]) -> list[Request]:
        seated = [request for request in queue if request.task.done()]
        for request in seated:
            queue.remove(request)
            request.lease = request.task.result()
            self.held.append(request)
            name = request.lease.replica.replica_id
            assert self.gate.open_requests(name) <= self.routed[name]
        return seated

    def _first(self, seated: list[Request], left: list[Request]) -> list[Request]:
        """Of all these, as many as were seated, in the order of their coming."""
        return sorted([*seated, *left], key=lambda request: request.task.get_name())[: len(seated)]

    def _give_up(self, request: Request) -> None:
        request.task.cancel()
        self._run(settle())
        self.waiting = [other for other in self.waiting if other is not request]
        self.returning = [other for other in self.returning if other is not request]
        self._seat()

    async def _start(self, key: str) -> asyncio.Task[Lease]:
        return await self._named(self.pool.take(key))

    async def _start_again(self, lease: Lease) -> asyncio.Task[Lease]:
        task = await self._named(self.pool.take_another(lease))
        lease.release()  # as whoever holds it does in the end
        return task

    async def _named(self, coroutine: Any) -> asyncio.Task[Lease]:
        self.started = getattr(self, "started", 0) + 1
        task = asyncio.create_task(coroutine, name=f"{self.started:06}")
        await settle()
        return task

    def _call(self, work: Any) -> None:
        async def call() -> None:
            work()
            await settle()

        self._run(call())

    def _run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)


AdmissionMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAdmission = AdmissionMachine.TestCase
