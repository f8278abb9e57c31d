"""Spares: replicas forked from a process that has imported the engine already, as good as those started afresh."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from dockyard.domain.devices import GIB, MIB, Host
from dockyard.errors import Reason
from dockyard.fleets.local.fleet import WORKER_COMMAND, LocalFleet
from dockyard.fleets.local.replica import Patience
from dockyard.oom_score import GOES_FIRST_BY

if TYPE_CHECKING:
    from conftest import Kit

ROOMY = Host(cores=2, memory_bytes=8 * GIB, available_bytes=4 * GIB)


class Children:
    """Of the process that runs the tests, less those that other tests keep for longer."""

    def __init__(self) -> None:
        self._others = psutil.Process().children()

    def now(self) -> list[psutil.Process]:
        return [child for child in psutil.Process().children() if child not in self._others]


@pytest.fixture
def children() -> Children:
    return Children()


@pytest.fixture
async def fleet(children: Children, kit: "Kit") -> LocalFleet:
    """Of real workers; the room of the machine that runs the tests does not count."""
    kit.command = WORKER_COMMAND
    return await kit.open_fleet(host=lambda: ROOMY)


@pytest.fixture
async def spare(kit: "Kit", fleet: LocalFleet) -> psutil.Process:
    fleet.keep_warm(["echo"])
    return await kit.once_warm(fleet, "echo")


async def test_when_memory_runs_out_a_spare_goes_before_its_replicas(
    kit: "Kit", fleet: LocalFleet, spare: psutil.Process
) -> None:
    status = await kit.start_ready(fleet, "echo")

    own, of_spare, of_replica = (
        int(Path("/proc", str(pid), "oom_score_adj").read_text()) for pid in ("self", spare.pid, status.pid)
    )
    assert (of_spare, of_replica) == (min(1000, own + GOES_FIRST_BY), own)


async def test_a_replica_of_a_spare_is_like_any_other(kit: "Kit", fleet: LocalFleet, spare: psutil.Process) -> None:
    status = await kit.start_ready(fleet, "echo")

    assert status.pid is not None
    assert status.health is not None
    assert set(status.health.timings) == {"importMs", "loadMs", "warmUpMs"}
    assert status.spawn_ms is not None
    assert os.getsid(status.pid) == os.getpgid(status.pid) == status.pid
    process = psutil.Process(status.pid)
    assert process.ppid() == spare.pid
    assert status.replica_id in " ".join(process.cmdline())
    assert os.getpriority(os.PRIO_PROCESS, status.pid) == os.getpriority(os.PRIO_PROCESS, 0)
    assert "started" in fleet.logs(status.replica_id)[0]
    await fleet.stop(status.replica_id, grace_s=30)
    assert fleet.statuses()[status.replica_id].failure is None
    assert not psutil.pid_exists(status.pid)


async def test_one_spare_makes_many_replicas_at_once_and_nothing_is_left_of_them(
    kit: "Kit", fleet: LocalFleet, spare: psutil.Process, children: Children
) -> None:
    await fleet.stop((await kit.start_ready(fleet, "echo")).replica_id, grace_s=30)
    before = len(os.listdir("/proc/self/fd")), spare.num_fds()

    for _ in range(3):
        started = await asyncio.gather(*(kit.start_ready(fleet, "echo") for _ in range(4)))
        assert {psutil.Process(status.pid).ppid() for status in started} == {spare.pid}
        await asyncio.gather(*(fleet.stop(status.replica_id, grace_s=30) for status in started))

    assert spare.children() == []
    assert children.now() == [spare]
    assert (len(os.listdir("/proc/self/fd")), spare.num_fds()) == before
    assert list(kit.run_dir.glob("*.sock")) == []


async def test_how_a_replica_of_a_spare_ended_is_known(kit: "Kit", fleet: LocalFleet, spare: psutil.Process) -> None:
    status = await kit.start_ready(fleet, "echo")

    kit.send(status, signal.SIGKILL)

    gone = await kit.once_gone(fleet, status.replica_id)
    assert gone.failure is not None
    assert "signal 9 (SIGKILL)" in gone.failure.message
    assert spare.children() == []


async def test_after_a_crash_the_next_replica_starts_afresh(
    kit: "Kit", fleet: LocalFleet, spare: psutil.Process
) -> None:
    """Should a fork have been the reason, the way out must not be the same way again."""
    status = await kit.start_ready(fleet, "echo")

    kit.send(status, signal.SIGSEGV)
    await kit.once_gone(fleet, status.replica_id)
    after = await kit.start_ready(fleet, "echo")

    assert psutil.Process(after.pid).ppid() == os.getpid()
    await kit.once_warm(fleet, "echo", other_than=spare.pid)


async def test_a_spare_that_dies_is_replaced_and_its_replicas_go_on(
    kit: "Kit", fleet: LocalFleet, spare: psutil.Process
) -> None:
    status = await kit.start_ready(fleet, "echo")

    spare.kill()

    await kit.once_warm(fleet, "echo", other_than=spare.pid)
    assert fleet.statuses()[status.replica_id].alive
    kit.send(status, signal.SIGKILL)
    gone = await kit.once_gone(fleet, status.replica_id)
    assert gone.failure is not None
    assert gone.failure.reason is Reason.ENGINE_CRASHED
    assert "unknown since the process that had started it was gone" in gone.failure.message


async def test_a_spare_that_does_not_answer_is_done_without(kit: "Kit") -> None:
    kit.command = WORKER_COMMAND
    fleet = await kit.open_fleet(host=lambda: ROOMY, patience=Patience(spare_answer_timeout_s=0.1))
    fleet.keep_warm(["echo"])
    spare = await kit.once_warm(fleet, "echo")
    spare.suspend()

    status = await kit.start_ready(fleet, "echo")

    assert psutil.Process(status.pid).ppid() == os.getpid()
    await kit.once_warm(fleet, "echo", other_than=spare.pid)


async def test_starts_of_the_same_replica_at_once_are_one(kit: "Kit", fleet: LocalFleet, spare: psutil.Process) -> None:
    spec = kit.spec("echo")

    statuses = await asyncio.gather(*(fleet.start(spec) for _ in range(3)))

    assert len({status.pid for status in statuses}) == 1
    assert len(spare.children()) == 1


async def test_a_replica_may_be_stopped_while_it_is_forked(
    kit: "Kit", fleet: LocalFleet, spare: psutil.Process
) -> None:
    spec = kit.spec("echo")
    starting = asyncio.create_task(fleet.start(spec))
    await asyncio.sleep(0)
    assert fleet.statuses()[spec.replica_id].pid is None

    await fleet.stop(spec.replica_id, grace_s=30)

    assert not (await kit.once_gone(fleet, spec.replica_id)).failure
    await starting
    assert spare.children() == []


async def test_a_caller_that_gives_up_leaves_no_unknown_process(
    kit: "Kit", fleet: LocalFleet, spare: psutil.Process
) -> None:
    spec = kit.spec("echo")
    starting = asyncio.create_task(fleet.start(spec))
    await asyncio.sleep(0)

    starting.cancel()

    status = await kit.once_in_phase(fleet, spec.replica_id, "ready")
    assert [child.pid for child in spare.children()] == [status.pid]


async def test_a_spare_that_nobody_wants_any_more_ends_after_its_last_replica(
    kit: "Kit", fleet: LocalFleet, spare: psutil.Process
) -> None:
    status = await kit.start_ready(fleet, "echo")

    fleet.keep_warm([])
    assert spare.is_running()
    await fleet.stop(status.replica_id, grace_s=30)

    await asyncio.to_thread(_wait_for, spare)
    while kit.run_dir.joinpath("spare-echo.log").exists():
        fleet.changed.clear()
        await fleet.changed.wait()
    assert fleet.warm() == {}


async def test_an_engine_that_cannot_be_imported_has_no_spare_and_starts_tell_why(
    kit: "Kit", fleet: LocalFleet, children: Children
) -> None:
    spec = kit.spec("no-such-engine")
    fleet.keep_warm([spec.engine])
    (hopeless,) = children.now()
    await asyncio.to_thread(_wait_for, hopeless)

    await fleet.start(spec)

    gone = await kit.once_gone(fleet, spec.replica_id)
    assert gone.failure is not None
    assert gone.failure.reason is Reason.ENGINE_NOT_INSTALLED


async def test_room_is_for_replicas_first(kit: "Kit", children: Children) -> None:
    kit.command = WORKER_COMMAND
    available = 4 * GIB
    fleet = await kit.open_fleet(host=lambda: Host(cores=2, memory_bytes=8 * GIB, available_bytes=available))
    fleet.keep_warm(["echo"])
    spare = await kit.once_warm(fleet, "echo")

    available = 100 * MIB
    fleet.keep_warm(["echo"])
    await asyncio.to_thread(_wait_for, spare)

    available = 1 * GIB
    fleet.keep_warm(["echo"])
    assert children.now() == []


async def test_without_spares_nothing_waits(kit: "Kit", children: Children) -> None:
    kit.command = WORKER_COMMAND
    fleet = await kit.open_fleet(host=lambda: ROOMY, warm_spares=False)

    fleet.keep_warm(["echo"])

    assert children.now() == []


async def test_a_killed_server_leaves_no_spare_and_its_replica_is_adopted(kit: "Kit") -> None:
    kit.command = WORKER_COMMAND
    known, spare_pid = await kit.dead_server(kit.spec("echo"), warm=True)
    assert spare_pid is not None
    with contextlib.suppress(psutil.NoSuchProcess):
        await asyncio.to_thread(_wait_for, psutil.Process(spare_pid))

    fleet = await kit.open_fleet(known, host=lambda: ROOMY)

    adopted = fleet.statuses()[known.replica_id]
    assert adopted.alive
    assert adopted.pid == known.pid
    await fleet.stop(known.replica_id, grace_s=30)
    assert not Path(known.socket).exists()


async def test_a_spare_that_did_not_notice_the_death_of_its_server_is_ended_by_the_next(
    kit: "Kit", fleet: LocalFleet, spare: psutil.Process
) -> None:
    spare.suspend()

    await kit.open_fleet()

    assert not spare.is_running() or spare.status() == psutil.STATUS_ZOMBIE


async def test_leaving_ends_the_spare_and_not_its_replicas(
    kit: "Kit", fleet: LocalFleet, spare: psutil.Process
) -> None:
    status = await kit.start_ready(fleet, "echo")

    await fleet.close(stop_replicas=False)

    assert not spare.is_running()
    heir = await kit.open_fleet(kit.known(status))
    assert heir.statuses()[status.replica_id].alive


def _wait_for(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.wait(60)
