"""Places, queue and waiting, with a clock that the test turns."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from dockyard.domain.autoscaling import Demand
from dockyard.domain.spec import HyperParameters
from dockyard.errors import NotFound, Reason, TooMany, Unavailable
from dockyard.gateway.admission import Admission
from dockyard.gateway.pool import Lease
from dockyard.protocols.fleet import ReplicaAddress
from dockyard.protocols.routing import Route, RouteReplica

ROUTE = Route(
    deployment_id="dp-1",
    model_id="cm-1",
    name="Ship",
    version_id="vr-1",
    version_name="Ship",
    engine="echo",
    hyper=HyperParameters(temperature=1, max_tokens=16, top_p=1, top_k=50),
    endpoint_timeout_s=60,
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    replicas=(),
)


class Turned:
    """A clock and its timers; `turn` moves both."""

    def __init__(self) -> None:
        self.at = 100.0
        self._timers: list[_Timer] = []

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return self.at

    def later(self, delay_s: float, callback: Callable[[], None]) -> "_Timer":
        timer = _Timer(self.at + delay_s, callback)
        self._timers.append(timer)
        return timer

    def turn(self, seconds: float) -> None:
        self.at += seconds
        due = [timer for timer in self._timers if timer.at <= self.at]
        self._timers = [timer for timer in self._timers if timer.at > self.at]
        for timer in due:
            timer.fire()


class _Timer:
    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at = at
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self._callback = None

    def fire(self) -> None:
        if self._callback is not None:
            self._callback()


def replica(name: str, capacity: int = 1) -> RouteReplica:
    return RouteReplica(
        replica_id=name, address=ReplicaAddress(token="t", socket=f"/nowhere/{name}"), capacity=capacity
    )


def route(*replicas: RouteReplica) -> Route:
    return replace(ROUTE, replicas=replicas)


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


def admission(clock: Turned | None = None, queue_limit: int = 10) -> Admission:
    clock = clock or Turned()
    return Admission(clock, queue_limit=queue_limit, later=clock.later)


async def test_the_least_loaded_replica_comes_first() -> None:
    pool = admission().publish(route(replica("small", 2), replica("large", 4)))
    taken = [(await pool.take("k")).replica.replica_id for _ in range(6)]
    assert taken[:2] == ["small", "large"]
    assert sorted(taken) == ["large"] * 4 + ["small"] * 2
    assert pool.load == Demand(0, 6)


async def test_equals_take_turns() -> None:
    pool = admission().publish(route(replica("a"), replica("b"), replica("c")))
    order: list[str] = []
    for _ in range(6):
        lease = await pool.take("k")
        order.append(lease.replica.replica_id)
        lease.release()
    assert order == ["a", "b", "c", "a", "b", "c"]


async def test_first_come_first_served() -> None:
    pool = admission().publish(route(replica("a")))
    first = await pool.take("k")
    tasks = [asyncio.create_task(pool.take("k")) for _ in range(3)]
    await settle()
    assert pool.load == Demand(3, 1)
    lease = first
    for index in range(3):
        lease.release()
        await settle()
        assert [task.done() for task in tasks] == [True] * (index + 1) + [False] * (2 - index)
        lease = tasks[index].result()
    lease.release()
    lease.release()
    assert pool.load == Demand(0, 0)


async def test_a_full_queue_refuses_with_the_time_that_the_queue_will_take() -> None:
    clock = Turned()
    pool = admission(clock, queue_limit=2).publish(route(replica("a")))
    lease = await pool.take("k")
    tasks = [asyncio.create_task(pool.take("k")) for _ in range(2)]
    await settle()
    for _ in range(8):  # one leaves every three seconds
        clock.turn(3)
        lease.release()
        lease = await tasks.pop(0)
        tasks.append(asyncio.create_task(pool.take("k")))
        await settle()
    with pytest.raises(TooMany) as refused:
        await pool.take("k")
    assert refused.value.reason is Reason.QUEUE_FULL
    assert refused.value.retry_after_s == 6
    assert "2 of them with this key" in str(refused.value)
    lease.release()
    assert await tasks[0]
    tasks[1].cancel()


async def test_another_key_waits_for_one_place_not_for_a_thousand_requests() -> None:
    pool = admission(queue_limit=1000).publish(route(replica("a", 4)))
    held = [await pool.take("flood") for _ in range(4)]
    flood = [asyncio.create_task(pool.take("flood")) for _ in range(1000)]
    await settle()
    other = [asyncio.create_task(pool.take("other")) for _ in range(2)]  # the queue is full, not for them
    await settle()
    with pytest.raises(TooMany):
        await pool.take("flood")
    assert pool.load == Demand(1002, 4)
    for index, task in enumerate(other):
        held[index].release()
        await settle()
        assert task.done()
    held[2].release()  # two each
    held[3].release()
    await settle()
    assert [task.done() for task in flood[:3]] == [True, True, False]
    for task in flood:
        task.cancel()
    await settle()
    assert pool.load == Demand(0, 4)


async def test_one_who_lost_his_replica_goes_first_and_is_never_refused() -> None:
    pool = admission(queue_limit=1).publish(route(replica("a"), replica("b")))
    lost, lease = await pool.take("k"), await pool.take("k")
    waiting = asyncio.create_task(pool.take("other"))
    await settle()
    lost.failed()
    back = asyncio.create_task(pool.take_another(lost))
    await settle()
    assert pool.load == Demand(2, 1)
    lease.release()
    await settle()
    assert (back.done(), waiting.done()) == (True, False)
    back.result().release()
    (await waiting).release()
    lost.release()
    assert pool.load == Demand(0, 0)


async def test_a_place_is_exchanged_without_a_gap_in_the_load() -> None:
    told: list[Demand] = []
    clock = Turned()
    gate = Admission(clock, on_load=lambda _, load: told.append(load), later=clock.later)
    pool = gate.publish(route(replica("a"), replica("b", 2)))
    leases = [await pool.take("k") for _ in range(3)]
    told.clear()
    leases[0].failed()
    waiting = asyncio.create_task(pool.take_another(leases[0]))
    await settle()
    assert told == [Demand(1, 2)]
    leases[1].release()
    another = await waiting
    assert told == [Demand(1, 2), Demand(0, 2)]
    stale = another
    other = await pool.take_another(stale)  # its place is free again: the same one
    assert other.replica == stale.replica
    assert told == [Demand(1, 2), Demand(0, 2)]


async def test_a_cancelled_waiter_counts_no_more_and_blocks_nobody() -> None:
    pool = admission().publish(route(replica("a")))
    lease = await pool.take("k")
    tasks = [asyncio.create_task(pool.take("k")) for _ in range(2)]
    await settle()
    tasks[0].cancel()
    await settle()
    assert pool.load == Demand(1, 1)
    lease.release()
    assert await tasks[1]


async def test_a_place_handed_to_a_waiter_in_the_step_of_his_cancellation_is_not_lost() -> None:
    pool = admission().publish(route(replica("a")))
    lease = await pool.take("k")
    task = asyncio.create_task(pool.take("k"))
    await settle()
    lease.release()  # the place is his now …
    task.cancel()  # … and he never sees it
    await settle()
    assert task.cancelled()
    assert pool.load == Demand(0, 0)
    assert await pool.take("k")


async def test_publishing_replicas_wakes_those_who_wait() -> None:
    gate = admission()
    pool = gate.publish(route())
    tasks = [asyncio.create_task(pool.take("k")) for _ in range(3)]
    await settle()
    gate.publish(route(replica("a", 2)))
    await settle()
    assert [task.done() for task in tasks] == [True, True, False]
    gate.publish(route(replica("a", 2), replica("b")))
    assert (await tasks[2]).replica.replica_id == "b"


async def test_a_replica_that_left_the_route_finishes_and_gets_nothing_new() -> None:
    gate = admission()
    pool = gate.publish(route(replica("old", 4)))
    lease = await pool.take("k")
    gate.publish(route(replica("new", 1)))
    assert (await pool.take("k")).replica.replica_id == "new"
    assert gate.open_requests("old") == 1
    drained = asyncio.create_task(gate.drained("old"))
    await settle()
    assert not drained.done()
    lease.release()
    await drained
    assert gate.open_requests("old") == 0
    await gate.drained("never heard of")


async def test_withdrawing_refuses_who_waits_and_keeps_what_runs() -> None:
    gate = admission()
    pool = gate.publish(route(replica("a", 2)))
    lease, lost = await pool.take("k"), await pool.take("k")
    waiting = asyncio.create_task(pool.take("k"))
    await settle()
    lost.failed()
    back = asyncio.create_task(pool.take_another(lost))
    await settle()
    gate.withdraw("dp-1")
    with pytest.raises(NotFound):
        await waiting
    with pytest.raises(Unavailable):
        await back
    with pytest.raises(NotFound):
        await pool.take("k")
    with pytest.raises(Unavailable):
        await pool.take_another(lease)
    assert gate.load("dp-1") == Demand(0, 1)
    assert gate.publish(route(replica("a"))) is pool  # deployed again: the same places, still counted
    assert gate.open_requests("a") == 1
    lease.release()
    assert gate.load("dp-1") == Demand(0, 0)


async def test_withdrawing_may_say_why() -> None:
    gate = admission()
    pool = gate.publish(route())
    tasks = [asyncio.create_task(pool.take("k")) for _ in range(2)]
    await settle()
    gate.withdraw("dp-1", Unavailable("the start failed", reason=Reason.OUT_OF_MEMORY, retry_after_s=7))
    told = await asyncio.gather(*tasks, return_exceptions=True)
    for error in told:
        assert isinstance(error, Unavailable)
        assert (str(error), error.reason, error.retry_after_s) == ("the start failed", Reason.OUT_OF_MEMORY, 7)
    assert told[0] is not told[1]
    with pytest.raises(Unavailable, match="the start failed"):
        await pool.take("k")


async def test_a_broken_replica_is_put_aside_while_another_is_there() -> None:
    pool = admission().publish(route(replica("bad", 9), replica("good", 2)))
    lease = await pool.take("k")
    assert lease.replica.replica_id == "bad"
    _fail(lease)
    assert [(await pool.take("k")).replica.replica_id for _ in range(2)] == ["good", "good"]


async def test_the_only_replica_is_tried_again_after_a_while_one_request_at_a_time() -> None:
    clock = Turned()
    pool = admission(clock).publish(route(replica("a", 4)))
    leases = [await pool.take("k") for _ in range(3)]
    for lease in leases:
        lease.failed()
    tasks = [asyncio.create_task(pool.take_another(lease)) for lease in leases]
    await settle()
    assert not any(task.done() for task in tasks)
    clock.turn(0.05)
    await settle()
    assert [task.done() for task in tasks] == [True, False, False]
    tasks[0].result().accepted()
    await settle()
    assert all(task.done() for task in tasks)


async def test_the_pause_grows_with_each_failure_and_a_publish_ends_it() -> None:
    clock = Turned()
    gate = admission(clock)
    pool = gate.publish(route(replica("a", 4)))
    _fail(await pool.take("k"))
    for pause in (0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0):
        task = asyncio.create_task(pool.take("k"))
        await settle()
        clock.turn(pause - 0.01)
        await settle()
        assert not task.done()
        clock.turn(0.011)
        _fail(await task)
    gate.publish(route(replica("a", 4)))
    assert await pool.take("k")


async def test_ten_that_break_at_once_are_one_failure() -> None:
    clock = Turned()
    pool = admission(clock).publish(route(replica("a", 10)))
    for lease in [await pool.take("k") for _ in range(10)]:
        _fail(lease)
    task = asyncio.create_task(pool.take("k"))
    await settle()
    clock.turn(0.05)
    assert await task


async def test_closing_refuses_all() -> None:
    gate = admission()
    pool = gate.publish(route())
    waiting = asyncio.create_task(pool.take("k"))
    await settle()
    gate.close()
    with pytest.raises(Unavailable) as refused:
        await waiting
    assert refused.value.reason is Reason.DRAINING


async def test_every_change_of_the_load_is_told_once_and_agrees_with_what_is_asked() -> None:
    told: list[Demand] = []
    clock = Turned()

    def on_load(deployment_id: str, load: Demand) -> None:
        assert gate.load(deployment_id) == load
        told.append(load)

    gate = Admission(clock, on_load=on_load, later=clock.later)
    pool = gate.publish(route(replica("a")))
    lease = await pool.take("k")
    tasks = [asyncio.create_task(pool.take("k")) for _ in range(3)]
    await settle()
    lease.release()  # handed over
    tasks[1].cancel()
    await settle()
    gate.publish(route(replica("a"), replica("b")))
    gate.publish(route(replica("b")))
    await settle()
    gate.withdraw("dp-1")
    (await tasks[0]).release()
    (await tasks[2]).release()
    assert told == [
        Demand(0, 1),
        Demand(1, 1),
        Demand(2, 1),
        Demand(3, 1),
        Demand(2, 1),
        Demand(1, 1),  # the client left
        Demand(0, 2),  # another replica
        Demand(0, 1),
        Demand(0, 0),
    ]


def _fail(lease: Lease) -> None:
    lease.failed()
    lease.release()
