"""The fake fleet's script: what a test of the control plane can bring about beyond the contract."""

import asyncio

import pytest

from dockyard.clock import SystemClock
from dockyard.errors import Failed, Reason
from dockyard.fleets.fake import FakeFleet
from dockyard.protocols.fleet import RunningReplica
from dockyard.protocols.generation import WorkerSpec

SPEC = WorkerSpec(
    replica_id="rp-1",
    token="t",
    engine="echo",
    artifact_dir="/a",
    model_dir="/m",
    family="decoder",
    device="cpu",
    compute_type="none",
    max_batch_size=4,
    context_length=128,
    threads=1,
    eos_token_ids=[],
)


async def test_a_refusal_is_raised_and_nothing_starts() -> None:
    fleet = FakeFleet(SystemClock())
    fleet.refusal = Failed("no memory", reason=Reason.NO_CAPACITY)

    with pytest.raises(Failed, match="no memory"):
        await fleet.start(SPEC)

    assert fleet.statuses() == {}
    assert fleet.started == []


async def test_with_auto_ready_a_replica_is_ready_at_once() -> None:
    fleet = FakeFleet(SystemClock(), auto_ready=True)

    status = await fleet.start(SPEC)

    assert status.health is not None
    assert (status.health.phase, status.health.capacity) == ("ready", 4)


async def test_a_stop_can_be_held_back() -> None:
    fleet = FakeFleet(SystemClock())
    await fleet.start(SPEC)
    fleet.may_stop.clear()
    stopping = asyncio.create_task(fleet.stop("rp-1", grace_s=1))
    await asyncio.sleep(0)
    assert fleet.statuses()["rp-1"].alive

    fleet.may_stop.set()
    await stopping

    assert not fleet.statuses()["rp-1"].alive


async def test_a_crash_carries_what_the_test_gives_it() -> None:
    fleet = FakeFleet(SystemClock())
    await fleet.start(SPEC)
    fleet.report("rp-1", "loading", progress="half")
    fleet.write("rp-1", "last words")

    fleet.crash("rp-1", reason=Reason.ENGINE_FAILED, message="no such layer", retryable=False)

    status = fleet.statuses()["rp-1"]
    assert status.health is not None
    assert status.health.progress == "half"
    assert status.failure is not None
    assert status.failure.log_tail[-1] == "last words"
    assert not status.failure.retryable


async def test_a_replica_that_dies_between_two_servers_is_not_adopted() -> None:
    fleet = FakeFleet(SystemClock())
    status = await fleet.start(SPEC)
    await fleet.close(stop_replicas=False)
    fleet.machine.kill("rp-1")

    heir = FakeFleet(SystemClock(), machine=fleet.machine)
    known = RunningReplica(replica_id="rp-1", token="t", pid=status.pid or 0, process_started_at=0, socket="")
    await heir.open([known])

    assert not heir.statuses()["rp-1"].alive
