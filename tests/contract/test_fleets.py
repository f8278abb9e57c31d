"""What every fleet promises: the fake one, the local one over a scripted worker, and over the real worker."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol

import pytest

from dockyard.clock import SystemClock
from dockyard.domain.ids import new_id
from dockyard.errors import Reason
from dockyard.fleets.fake import FakeFleet, FakeMachine
from dockyard.fleets.local.adoption import end_all, find_workers
from dockyard.fleets.local.fleet import WORKER_COMMAND, LocalFleet
from dockyard.protocols.fleet import Fleet, ReplicaStatus, RunningReplica
from dockyard.protocols.generation import WorkerSpec

TESTS = Path(__file__).parent.parent
ECHO_MODEL = TESTS / "models" / "echo"
SCRIPTED = (sys.executable, str(TESTS / "integration" / "fleets" / "scripted_worker.py"))


class Yard(Protocol):
    """One machine: fleets come and go on it, as servers do; what happens to replicas is brought about here."""

    engine: str

    def new_fleet(self) -> Fleet: ...

    def let_ready(self, fleet: Fleet, replica_id: str) -> None: ...

    def crash(self, fleet: Fleet, replica_id: str) -> None: ...

    async def clear(self) -> None: ...


class FakeYard:
    engine = "echo"

    def __init__(self) -> None:
        self.machine = FakeMachine()

    def new_fleet(self) -> Fleet:
        return FakeFleet(SystemClock(), machine=self.machine)

    def let_ready(self, fleet: Fleet, replica_id: str) -> None:
        assert isinstance(fleet, FakeFleet)
        fleet.make_ready(replica_id, capacity=4)

    def crash(self, fleet: Fleet, replica_id: str) -> None:
        assert isinstance(fleet, FakeFleet)
        fleet.crash(replica_id)

    async def clear(self) -> None:
        pass


class LocalYard:
    def __init__(self, run_dir: Path, command: tuple[str, ...], engine: str) -> None:
        self.run_dir = run_dir
        self.command = command
        self.engine = engine
        self.fleets: list[LocalFleet] = []

    def new_fleet(self) -> Fleet:
        fleet = LocalFleet(self.run_dir, SystemClock(), command=self.command)
        self.fleets.append(fleet)
        return fleet

    def let_ready(self, fleet: Fleet, replica_id: str) -> None:
        pass  # the worker gets there by itself

    def crash(self, fleet: Fleet, replica_id: str) -> None:
        pid = fleet.statuses()[replica_id].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    async def clear(self) -> None:
        for fleet in self.fleets:
            await fleet.close(stop_replicas=True)
        await end_all(find_workers(self.run_dir).values())


@pytest.fixture(params=["fake", "local", "local-real-worker"])
async def yard(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Yard]:
    made: Yard
    if request.param == "fake":
        made = FakeYard()
    elif request.param == "local":
        made = LocalYard(tmp_path / "run", SCRIPTED, "ready")
    else:
        made = LocalYard(tmp_path / "run", WORKER_COMMAND, "echo")
    yield made
    await made.clear()


@pytest.fixture
async def fleet(yard: Yard) -> Fleet:
    fleet = yard.new_fleet()
    await fleet.open([])
    return fleet


def spec_for(yard: Yard) -> WorkerSpec:
    return WorkerSpec(
        replica_id=new_id("rp"),
        token="not-a-secret",
        engine=yard.engine,
        artifact_dir=str(ECHO_MODEL),
        model_dir=str(ECHO_MODEL),
        family="decoder",
        device="cpu",
        compute_type="none",
        max_batch_size=4,
        context_length=128,
        threads=1,
        eos_token_ids=[],
    )


async def status_once(fleet: Fleet, replica_id: str, holds: Callable[[ReplicaStatus], bool]) -> ReplicaStatus:
    """The replica's status as soon as `holds` is true of it; the fleet says when to look."""
    async with asyncio.timeout(60):
        while True:
            fleet.changed.clear()
            status = fleet.statuses()[replica_id]
            if holds(status):
                return status
            await fleet.changed.wait()


def is_ready(status: ReplicaStatus) -> bool:
    return status.health is not None and status.health.phase == "ready"


def is_gone(status: ReplicaStatus) -> bool:
    return not status.alive


async def start_ready(yard: Yard, fleet: Fleet) -> ReplicaStatus:
    spec = spec_for(yard)
    await fleet.start(spec)
    yard.let_ready(fleet, spec.replica_id)
    return await status_once(fleet, spec.replica_id, is_ready)


def as_known(status: ReplicaStatus) -> RunningReplica:
    assert status.pid is not None
    assert status.process_started_at is not None
    assert status.address.socket is not None
    return RunningReplica(
        replica_id=status.replica_id,
        token=status.address.token,
        pid=status.pid,
        process_started_at=status.process_started_at,
        socket=status.address.socket,
    )


async def test_a_started_replica_exists_at_once_and_becomes_ready(yard: Yard, fleet: Fleet) -> None:
    spec = spec_for(yard)

    started = await fleet.start(spec)

    assert started.alive
    assert started.pid is not None
    assert started.process_started_at is not None
    assert started.address.token == spec.token
    yard.let_ready(fleet, spec.replica_id)
    ready = await status_once(fleet, spec.replica_id, is_ready)
    assert ready.health is not None
    assert ready.health.replica_id == spec.replica_id
    assert ready.health.capacity == 4
    assert ready.failure is None
    assert ready.spawn_ms is not None


async def test_starting_the_same_replica_again_changes_nothing(yard: Yard, fleet: Fleet) -> None:
    spec = spec_for(yard)
    first = await fleet.start(spec)

    again = await fleet.start(spec)

    assert again.pid == first.pid
    assert len(fleet.statuses()) == 1


async def test_a_crash_is_told_with_its_reason_and_log(yard: Yard, fleet: Fleet) -> None:
    status = await start_ready(yard, fleet)

    yard.crash(fleet, status.replica_id)

    gone = await status_once(fleet, status.replica_id, is_gone)
    assert gone.failure is not None
    assert gone.failure.reason is Reason.ENGINE_CRASHED
    assert gone.failure.retryable
    assert "signal 9 (SIGKILL)" in gone.failure.message
    assert list(gone.failure.log_tail) == list(fleet.logs(status.replica_id, 20))


async def test_a_crashed_replica_stays_crashed_when_started_again(yard: Yard, fleet: Fleet) -> None:
    spec = spec_for(yard)
    await fleet.start(spec)
    yard.crash(fleet, spec.replica_id)
    await status_once(fleet, spec.replica_id, is_gone)

    again = await fleet.start(spec)

    assert not again.alive


async def test_a_stopped_replica_is_gone_without_a_failure(yard: Yard, fleet: Fleet) -> None:
    status = await start_ready(yard, fleet)
    fleet.changed.clear()

    await fleet.stop(status.replica_id, grace_s=30)

    assert fleet.changed.is_set()
    stopped = fleet.statuses()[status.replica_id]
    assert not stopped.alive
    assert stopped.failure is None


async def test_stops_at_the_same_time_all_return(yard: Yard, fleet: Fleet) -> None:
    status = await start_ready(yard, fleet)

    await asyncio.gather(*(fleet.stop(status.replica_id, grace_s=30) for _ in range(3)))
    await fleet.stop(status.replica_id, grace_s=0)

    assert not fleet.statuses()[status.replica_id].alive


async def test_a_replica_may_be_stopped_before_it_said_a_word(yard: Yard, fleet: Fleet) -> None:
    spec = spec_for(yard)
    await fleet.start(spec)

    await fleet.stop(spec.replica_id, grace_s=30)

    stopped = fleet.statuses()[spec.replica_id]
    assert not stopped.alive
    assert stopped.failure is None


async def test_an_unknown_replica_is_no_error(fleet: Fleet) -> None:
    await fleet.stop("rp-unknown", grace_s=1)
    fleet.forget("rp-unknown")
    assert list(fleet.logs("rp-unknown")) == []


async def test_only_an_ended_replica_is_forgotten(yard: Yard, fleet: Fleet) -> None:
    status = await start_ready(yard, fleet)

    fleet.forget(status.replica_id)
    assert fleet.statuses()[status.replica_id].alive

    await fleet.stop(status.replica_id, grace_s=30)
    fleet.forget(status.replica_id)
    assert status.replica_id not in fleet.statuses()
    assert list(fleet.logs(status.replica_id)) == []


async def test_the_next_fleet_adopts_what_was_left_running(yard: Yard, fleet: Fleet) -> None:
    before = await start_ready(yard, fleet)
    await fleet.close(stop_replicas=False)

    heir = yard.new_fleet()
    await heir.open([as_known(before)])

    adopted = heir.statuses()[before.replica_id]
    assert adopted.alive
    assert adopted.pid == before.pid
    assert is_ready(adopted)
    yard.crash(heir, before.replica_id)
    gone = await status_once(heir, before.replica_id, is_gone)
    assert gone.failure is not None


async def test_an_adopted_replica_can_be_stopped(yard: Yard, fleet: Fleet) -> None:
    before = await start_ready(yard, fleet)
    await fleet.close(stop_replicas=False)
    heir = yard.new_fleet()
    await heir.open([as_known(before)])

    await heir.stop(before.replica_id, grace_s=30)

    stopped = heir.statuses()[before.replica_id]
    assert not stopped.alive
    assert stopped.failure is None


async def test_a_replica_that_did_not_survive_is_told_of(yard: Yard, fleet: Fleet) -> None:
    before = await start_ready(yard, fleet)
    await fleet.close(stop_replicas=True)

    heir = yard.new_fleet()
    await heir.open([as_known(before)])

    lost = heir.statuses()[before.replica_id]
    assert not lost.alive
    assert lost.failure is not None
    assert lost.failure.reason is Reason.ENGINE_CRASHED
    assert "did not survive" in lost.failure.message


async def test_what_nobody_knows_is_ended(yard: Yard, fleet: Fleet) -> None:
    before = await start_ready(yard, fleet)
    await fleet.close(stop_replicas=False)

    await yard.new_fleet().open([])
    third = yard.new_fleet()
    await third.open([as_known(before)])

    assert not third.statuses()[before.replica_id].alive


async def test_engines_kept_warm_are_no_replicas_and_their_replicas_start_as_ever(yard: Yard, fleet: Fleet) -> None:
    fleet.keep_warm([yard.engine, "no-such-engine"])
    assert fleet.statuses() == {}

    first = await start_ready(yard, fleet)
    fleet.keep_warm([yard.engine])
    second = await start_ready(yard, fleet)
    fleet.keep_warm([])

    assert all(fleet.statuses()[status.replica_id].alive for status in (first, second))


async def test_closing_with_stop_ends_all_replicas(yard: Yard, fleet: Fleet) -> None:
    started = [await start_ready(yard, fleet) for _ in range(2)]

    await fleet.close(stop_replicas=True)

    assert [status.alive for status in fleet.statuses().values()] == [False] * len(started)
