"""Stopping: the replica may finish, within its grace; then nothing of it is left."""

import asyncio
import gc
import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from dockyard.fleets.local.channel import Channel
from dockyard.fleets.local.fleet import LocalFleet
from dockyard.fleets.local.process import Process
from dockyard.fleets.local.replica import LocalReplica

if TYPE_CHECKING:
    from conftest import Kit


async def test_a_replica_that_ends_when_asked_is_not_killed(kit: "Kit", fleet: LocalFleet) -> None:
    status = await kit.start_ready(fleet)

    await fleet.stop(status.replica_id, grace_s=60)

    assert status.pid is not None
    assert not psutil.pid_exists(status.pid)
    assert fleet.statuses()[status.replica_id].failure is None


async def test_a_replica_that_goes_on_is_killed_after_its_grace(kit: "Kit", fleet: LocalFleet) -> None:
    status = await kit.start_ready(fleet, "stubborn")

    await fleet.stop(status.replica_id, grace_s=0.1)

    assert status.pid is not None
    assert not psutil.pid_exists(status.pid)
    assert fleet.statuses()[status.replica_id].failure is None


async def test_a_shorter_grace_wins_over_a_longer_one(kit: "Kit", fleet: LocalFleet) -> None:
    status = await kit.start_ready(fleet, "stubborn")

    patient = asyncio.create_task(fleet.stop(status.replica_id, grace_s=3600))
    await fleet.stop(status.replica_id, grace_s=0.1)
    await patient

    assert not fleet.statuses()[status.replica_id].alive


async def test_nothing_is_left_after_twenty_replicas(kit: "Kit", fleet: LocalFleet) -> None:
    await fleet.stop((await kit.start_ready(fleet)).replica_id, grace_s=60)
    before, children = len(os.listdir("/proc/self/fd")), psutil.Process().children()

    for _ in range(4):
        started = await asyncio.gather(*(kit.start_ready(fleet) for _ in range(5)))
        await asyncio.gather(*(fleet.stop(status.replica_id, grace_s=60) for status in started))

    assert len(os.listdir("/proc/self/fd")) == before
    assert psutil.Process().children() == children
    assert list(kit.run_dir.glob("*.sock")) == []


async def test_of_an_ended_replica_no_more_than_its_status_is_kept(kit: "Kit", fleet: LocalFleet) -> None:
    stopped = [await kit.start_ready(fleet) for _ in range(3)]
    held = [weakref.ref(one) for one in gc.get_objects() if type(one) in (LocalReplica, Channel, Process)]
    assert len(held) >= 9

    for status in stopped:
        await fleet.stop(status.replica_id, grace_s=60)
    gc.collect()

    assert [one() for one in held if one() is not None] == []
    assert {status.replica_id for status in stopped} == set(fleet.statuses())


async def test_a_forgotten_replica_leaves_no_file(kit: "Kit", fleet: LocalFleet) -> None:
    status = await kit.start_ready(fleet)
    await fleet.stop(status.replica_id, grace_s=60)
    assert list(kit.run_dir.iterdir()) == [kit.run_dir / f"{status.replica_id}.log"]

    fleet.forget(status.replica_id)

    assert list(kit.run_dir.iterdir()) == []


async def test_leaving_lets_replicas_run(kit: "Kit", fleet: LocalFleet) -> None:
    status = await kit.start_ready(fleet)

    await fleet.close(stop_replicas=False)

    assert status.pid is not None
    assert psutil.Process(status.pid).is_running()
    assert Path(status.address.socket or "").is_socket()
