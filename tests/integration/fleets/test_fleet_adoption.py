"""After the death of a server the next one finds its replicas, and ends all that it does not know."""

import asyncio
import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from dockyard.errors import Reason
from dockyard.fleets.local.replica import Patience
from dockyard.protocols.fleet import RunningReplica

if TYPE_CHECKING:
    from conftest import Kit


async def replica_of_dead_server(kit: "Kit", engine: str = "ready") -> RunningReplica:
    """A replica whose server was killed with `kill -9` once the replica was ready."""
    return (await kit.dead_server(kit.spec(engine)))[0]


async def test_a_replica_outlives_its_server_and_is_adopted(kit: "Kit") -> None:
    known = await replica_of_dead_server(kit)

    fleet = await kit.open_fleet(known)

    status = fleet.statuses()[known.replica_id]
    assert status.alive
    assert status.pid == known.pid
    assert status.health is not None
    assert status.health.phase == "ready"
    assert status.address.socket == known.socket
    await fleet.stop(known.replica_id, grace_s=60)
    assert not Path(known.socket).exists()


async def test_the_end_of_an_adopted_replica_is_noticed(kit: "Kit") -> None:
    known = await replica_of_dead_server(kit)
    fleet = await kit.open_fleet(known)

    kit.send(fleet.statuses()[known.replica_id], signal.SIGKILL)

    gone = await kit.once_gone(fleet, known.replica_id)
    assert gone.failure is not None
    assert gone.failure.reason is Reason.ENGINE_CRASHED
    assert "unknown since the process that had started it was gone" in gone.failure.message


async def test_a_replica_nobody_recorded_is_ended_with_its_socket(kit: "Kit") -> None:
    orphan = await replica_of_dead_server(kit, "parent")
    stale = kit.run_dir / "0badcafe.sock"
    stale.touch()
    process = psutil.Process(orphan.pid)
    child = kit.end_later(process.children()[0].pid)

    fleet = await kit.open_fleet()

    assert not _runs(process)
    await asyncio.to_thread(child.wait)
    assert list(kit.run_dir.glob("*.sock")) == []
    assert fleet.statuses() == {}


async def test_a_recycled_pid_is_left_alone(kit: "Kit") -> None:
    bystander = await asyncio.create_subprocess_exec("sleep", "600")
    process = kit.end_later(bystander.pid)
    known = RunningReplica(
        replica_id="rp-00000000",
        token="t",
        pid=bystander.pid,
        process_started_at=process.create_time(),
        socket=str(kit.run_dir / "00000000.sock"),
    )

    fleet = await kit.open_fleet(known)

    lost = fleet.statuses()[known.replica_id]
    assert not lost.alive
    assert lost.failure is not None
    assert "its process is gone" in lost.failure.message
    assert _runs(process)
    bystander.kill()
    await bystander.wait()


async def test_a_replica_of_another_start_time_is_not_taken_for_the_recorded_one(kit: "Kit") -> None:
    known = await replica_of_dead_server(kit)
    process = psutil.Process(known.pid)

    fleet = await kit.open_fleet(replace(known, process_started_at=known.process_started_at - 60))

    assert not fleet.statuses()[known.replica_id].alive
    assert not _runs(process)


async def test_a_replica_that_does_not_know_the_token_is_not_adopted(kit: "Kit") -> None:
    known = await replica_of_dead_server(kit)
    process = psutil.Process(known.pid)

    fleet = await kit.open_fleet(replace(known, token="another"))

    lost = fleet.statuses()[known.replica_id]
    assert lost.failure is not None
    assert "no longer answered" in lost.failure.message
    assert not _runs(process)


async def test_a_server_does_not_wait_for_a_replica_that_hangs(kit: "Kit") -> None:
    hung = await replica_of_dead_server(kit)
    psutil.Process(hung.pid).suspend()

    fleet = await kit.open_fleet(hung, patience=Patience(adopt_head_start_s=0.05))

    assert fleet.statuses()[hung.replica_id].alive
    assert fleet.statuses()[hung.replica_id].health is None
    psutil.Process(hung.pid).resume()
    await kit.once_in_phase(fleet, hung.replica_id, "ready")


async def test_a_replica_that_goes_on_hanging_is_ended(kit: "Kit") -> None:
    hung = await replica_of_dead_server(kit)
    psutil.Process(hung.pid).suspend()

    fleet = await kit.open_fleet(hung, patience=Patience(adopt_head_start_s=0.05, adopt_timeout_s=0.1))

    gone = await kit.once_gone(fleet, hung.replica_id)
    assert gone.failure is not None
    assert gone.failure.reason is Reason.TIMED_OUT
    assert "did not answer the new server" in gone.failure.message


async def test_replicas_of_another_data_directory_are_left_alone(kit: "Kit", tmp_path: Path) -> None:
    known = await replica_of_dead_server(kit)
    process = psutil.Process(known.pid)
    kit.run_dir, own = tmp_path / "run-of-another", kit.run_dir

    await kit.open_fleet()

    assert _runs(process)
    kit.run_dir = own
    await kit.open_fleet()
    assert not _runs(process)


def _runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
