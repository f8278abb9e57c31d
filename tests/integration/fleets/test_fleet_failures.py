"""A replica that ends unasked is noticed through its process, and what is told of it says why."""

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from dockyard.errors import Reason
from dockyard.fleets.local.fleet import LocalFleet
from dockyard.fleets.local.replica import Patience

if TYPE_CHECKING:
    from conftest import Kit


async def test_a_killed_replica_is_noticed_without_asking_it(kit: "Kit") -> None:
    fleet = await kit.open_fleet(patience=Patience(probe_interval_s=3600))
    status = await kit.start_ready(fleet)

    kit.send(status, signal.SIGKILL)

    gone = await kit.once_gone(fleet, status.replica_id)
    assert gone.failure is not None
    assert gone.failure.reason is Reason.ENGINE_CRASHED
    assert "signal 9 (SIGKILL)" in gone.failure.message
    assert "out-of-memory" in gone.failure.message
    assert gone.failure.retryable


@pytest.mark.parametrize(
    ("engine", "reason", "message", "retryable"),
    [
        ("crash-at-load", Reason.ENGINE_CRASHED, "exit code 3", True),
        ("end", Reason.ENGINE_CRASHED, "ended by itself", True),
        ("segfault", Reason.ENGINE_CRASHED, "signal 11 (SIGSEGV)", True),
        ("refuse", Reason.ENGINE_FAILED, "the engine knows no such layer", False),
        ("refuse-and-end", Reason.ENGINE_FAILED, "the engine knows no such layer", False),
    ],
)
async def test_the_failure_says_why(
    kit: "Kit", fleet: LocalFleet, engine: str, reason: Reason, message: str, retryable: bool
) -> None:
    spec = kit.spec(engine)
    await fleet.start(spec)

    gone = await kit.once_gone(fleet, spec.replica_id)

    assert gone.failure is not None
    assert gone.failure.reason is reason
    assert message in gone.failure.message
    assert gone.failure.retryable is retryable
    assert gone.failure.log_tail[0] == f"scripted worker, engine {engine}"


async def test_the_log_tail_holds_what_the_process_wrote_last(kit: "Kit", fleet: LocalFleet) -> None:
    spec = kit.spec("crash-at-load")
    await fleet.start(spec)

    gone = await kit.once_gone(fleet, spec.replica_id)

    assert gone.failure is not None
    assert gone.failure.log_tail[-1] == "Traceback: the weights are upside down"
    assert fleet.logs(spec.replica_id, 1) == ("Traceback: the weights are upside down",)


async def test_a_replica_that_no_longer_answers_is_killed(kit: "Kit", fleet: LocalFleet) -> None:
    """The hasty fleet adopts: a replica of its own would have to load within its short timeouts."""
    status = await kit.start_ready(fleet)
    await fleet.close(stop_replicas=False)
    hasty = Patience(probe_interval_s=0.05, probe_timeout_s=0.05, failed_probes=3)
    heir = await kit.open_fleet(kit.known(status), patience=hasty)

    kit.send(status, signal.SIGSTOP)

    gone = await kit.once_gone(heir, status.replica_id)
    assert gone.failure is not None
    assert gone.failure.reason is Reason.TIMED_OUT
    assert gone.failure.retryable


async def test_a_slow_load_is_not_cut_short(kit: "Kit") -> None:
    """The probes go on for many times their interval and find a replica that loads, and lives."""
    fleet = await kit.open_fleet(patience=Patience(probe_interval_s=0.01))
    slow, ready = kit.spec("load"), kit.spec("ready")
    await fleet.start(slow)
    await kit.once_in_phase(fleet, slow.replica_id, "loading")

    for _ in range(3):
        await fleet.start(ready)
        await kit.once_in_phase(fleet, ready.replica_id, "ready")
        await fleet.stop(ready.replica_id, grace_s=30)
        ready = kit.spec("ready")

    assert fleet.statuses()[slow.replica_id].alive


async def test_a_start_that_comes_no_step_further_is_ended_and_says_at_what(kit: "Kit") -> None:
    """The hasty fleet adopts: within its short time a process would have to come up."""
    fleet = await kit.open_fleet()
    spec = kit.spec("load")
    await fleet.start(spec)
    status = await kit.once_in_phase(fleet, spec.replica_id, "loading")
    await fleet.close(stop_replicas=False)
    hasty = await kit.open_fleet(kit.known(status), patience=Patience(start_timeout_s=0.3))

    gone = await kit.once_gone(hasty, spec.replica_id)

    assert gone.failure is not None
    assert gone.failure.reason is Reason.TIMED_OUT
    assert gone.failure.message.startswith("the replica hung while loading")
    assert "no step further for 0.3 s" in gone.failure.message
    assert "DOCKYARD_START_TIMEOUT_S" in gone.failure.message
    assert not gone.failure.retryable  # it would hang again, for as long again
    assert gone.failure.log_tail


async def test_what_a_dead_replica_had_started_is_ended_too(kit: "Kit", fleet: LocalFleet) -> None:
    status = await kit.start_ready(fleet, "parent")
    child = kit.end_later(int(fleet.logs(status.replica_id, 1)[0].removeprefix("child ")))
    kit.send(status, signal.SIGKILL)
    await kit.once_gone(fleet, status.replica_id)

    await asyncio.to_thread(child.wait)
