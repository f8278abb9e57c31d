"""Fine-tunes of one base on GPUs, as real processes: they share an engine, and its GPUs are given out once."""

import asyncio
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from dockyard.domain.devices import GIB
from dockyard.engines.groups import group_of
from dockyard.errors import Failed, Reason
from dockyard.fleets.fake_gpus import FakeGpus
from dockyard.fleets.local.fleet import WORKER_COMMAND, LocalFleet
from dockyard.fleets.local.folder import RunFolder
from dockyard.fleets.local.gpus import GpuPatience
from dockyard.fleets.local.shared_engines import SharedEngines
from dockyard.protocols.fleet import ReplicaStatus, RunningReplica
from dockyard.protocols.generation import Adapter, WorkerSpec

if TYPE_CHECKING:
    from conftest import Kit

QUICK = GpuPatience(look_every_s=0.01, release_every_s=0.01)


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[None]:
    """After everything else: engines that were killed leave their sockets, perhaps in a folder beside the test's."""
    yield
    shutil.rmtree(RunFolder(tmp_path / "run").temporary, ignore_errors=True)


@pytest.fixture
def machine() -> FakeGpus:
    machine = FakeGpus()
    machine.add()
    return machine


@pytest.fixture
async def shared(kit: "Kit", machine: FakeGpus) -> LocalFleet:
    kit.command = WORKER_COMMAND
    return await kit.open_fleet(gpus=machine, gpu_patience=QUICK)


def fine_tune(kit: "Kit", version: str, **changes: int) -> WorkerSpec:
    spec = kit.spec("echo")
    spec.device, spec.gpus, spec.gpu_bytes = "cuda", 1, 10 * GIB
    for name, value in changes.items():
        setattr(spec, name, value)
    spec.adapter = Adapter(folder=spec.model_dir, rank=8, version_id=version)
    spec.adapter.group = group_of(spec)
    return spec


async def started(kit: "Kit", fleet: LocalFleet, version: str) -> ReplicaStatus:
    spec = fine_tune(kit, version)
    await fleet.start(spec)
    return await kit.once_in_phase(fleet, spec.replica_id, "ready")


def engine_of(kit: "Kit", machine: FakeGpus, status: ReplicaStatus) -> psutil.Process:
    """The engine of a replica, which has taken 8 GiB of its GPU."""
    assert status.address.socket is not None
    pid = SharedEngines(RunFolder(kit.run_dir).temporary).find(status.gpus)
    assert pid
    if all(process.pid != pid for gpu in machine.read().gpus for process in gpu.processes):
        machine.use(status.gpus[0], pid, 8)
    return kit.end_later(pid)


def known(kit: "Kit", status: ReplicaStatus, version: str) -> RunningReplica:
    adapter = fine_tune(kit, version).adapter
    assert adapter is not None
    return replace(kit.known(status), engine_group=adapter.group, version_id=version)


async def once_free(fleet: LocalFleet) -> None:
    async with asyncio.timeout(60):
        while any(gpu.replica_id for gpu in fleet.host().gpus):
            fleet.changed.clear()
            await fleet.changed.wait()


async def once_to_join(fleet: LocalFleet) -> None:
    async with asyncio.timeout(60):
        while fleet.host().gpus[0].engine is None:
            fleet.changed.clear()
            await fleet.changed.wait()


async def test_the_second_fine_tune_joins_and_takes_no_gpu(kit: "Kit", shared: LocalFleet, machine: FakeGpus) -> None:
    one = await started(kit, shared, "v-1")
    engine = engine_of(kit, machine, one)
    two = await started(kit, shared, "v-2")
    assert two.gpus == one.gpus
    assert engine_of(kit, machine, two).pid == engine.pid
    assert engine.environ()["CUDA_VISIBLE_DEVICES"] == one.gpus[0]
    await shared.gpus.look()
    assert shared.host().gpus[0].others_bytes == 0  # the engine's memory is ours
    for refused in (fine_tune(kit, "v-1"), fine_tune(kit, "v-3", max_batch_size=5)):
        with pytest.raises(Failed, match="GPU 0") as caught:
            await shared.start(refused)
        assert caught.value.reason is Reason.NO_CAPACITY


async def test_a_second_replica_of_a_version_has_an_engine_and_gpus_of_its_own(
    kit: "Kit", shared: LocalFleet, machine: FakeGpus
) -> None:
    machine.add()
    first, second = await started(kit, shared, "v-1"), await started(kit, shared, "v-1")
    assert first.gpus != second.gpus
    assert engine_of(kit, machine, first).pid != engine_of(kit, machine, second).pid
    joined = [await started(kit, shared, "v-2") for _ in range(2)]
    assert [status.gpus for status in joined] == [first.gpus, second.gpus]


async def test_the_engine_outlives_the_replica_that_began_it(kit: "Kit", shared: LocalFleet, machine: FakeGpus) -> None:
    one, two = await started(kit, shared, "v-1"), await started(kit, shared, "v-2")
    engine = engine_of(kit, machine, one)
    kit.send(one, signal.SIGKILL)
    await kit.once_gone(shared, one.replica_id)
    await shared.gpus.look()
    (gpu,) = shared.host().gpus
    assert (gpu.replica_id, gpu.ending, gpu.others_bytes) == (two.replica_id, False, 0)
    again = await started(kit, shared, "v-1")
    assert (again.gpus, engine_of(kit, machine, again).pid) == (two.gpus, engine.pid)


async def test_the_place_of_the_last_replica_is_taken_while_the_engine_waits_for_that(
    kit: "Kit", shared: LocalFleet, machine: FakeGpus
) -> None:
    one = await started(kit, shared, "v-1")
    engine = engine_of(kit, machine, one)
    kit.send(one, signal.SIGKILL)
    await kit.once_gone(shared, one.replica_id)
    await once_to_join(shared)
    again = await started(kit, shared, "v-1")
    assert engine_of(kit, machine, again).pid == engine.pid
    assert not shared.host().gpus[0].ending


async def test_after_the_last_one_the_gpu_waits_for_the_engine_and_then_for_its_memory(
    kit: "Kit", shared: LocalFleet, machine: FakeGpus
) -> None:
    one, two = await started(kit, shared, "v-1"), await started(kit, shared, "v-2")
    engine = engine_of(kit, machine, one)
    for status in (one, two):
        await shared.stop(status.replica_id, grace_s=60)
    await shared.gpus.look()
    assert shared.host().gpus[0].awaits == "GPU 0 (NVIDIA A10G): the engine that its replicas shared has not ended yet"
    assert engine.is_running()
    await asyncio.to_thread(psutil.wait_procs, [engine], timeout=60)
    await shared.gpus.look()
    assert f"process(es) {engine.pid} of it are still on it" in (shared.host().gpus[0].awaits or "")
    machine.free(one.gpus[0])
    await once_free(shared)


async def test_when_the_engine_dies_all_go_and_the_next_one_gets_the_gpu_once_it_is_free(
    kit: "Kit", shared: LocalFleet, machine: FakeGpus
) -> None:
    one, two = await started(kit, shared, "v-1"), await started(kit, shared, "v-2")
    engine = engine_of(kit, machine, one)
    await shared.gpus.look()
    os.kill(engine.pid, signal.SIGKILL)
    await asyncio.gather(*(kit.once_gone(shared, status.replica_id) for status in (one, two)))
    await shared.gpus.look()
    with pytest.raises(Failed, match="which ends"):
        await shared.start(fine_tune(kit, "v-1"))
    machine.free(one.gpus[0])
    await once_free(shared)
    after = await started(kit, shared, "v-2")
    assert (after.gpus, engine_of(kit, machine, after).pid == engine.pid) == (one.gpus, False)


async def test_a_new_server_finds_who_shares(kit: "Kit", shared: LocalFleet, machine: FakeGpus) -> None:
    one, two = await started(kit, shared, "v-1"), await started(kit, shared, "v-2")
    engine = engine_of(kit, machine, one)
    await shared.close(stop_replicas=False)

    after = await kit.open_fleet(known(kit, one, "v-1"), known(kit, two, "v-2"), gpus=machine, gpu_patience=QUICK)

    assert after.host().gpus[0].others_bytes == 0
    three = await started(kit, after, "v-3")
    assert (three.gpus, engine_of(kit, machine, three).pid) == (one.gpus, engine.pid)
    with pytest.raises(Failed):
        await after.start(fine_tune(kit, "v-2"))
    for status in (one, two):
        await after.stop(status.replica_id, grace_s=60)
    await after.gpus.look()
    assert [gpu.replica_id for gpu in after.host().gpus] == [three.replica_id]


async def test_an_engine_whose_replicas_died_with_the_server_is_waited_for(
    kit: "Kit", shared: LocalFleet, machine: FakeGpus
) -> None:
    one = await started(kit, shared, "v-1")
    engine = engine_of(kit, machine, one)
    os.kill(engine.pid, signal.SIGSTOP)  # it hangs
    await shared.close(stop_replicas=False)
    kit.send(one, signal.SIGKILL)
    await asyncio.to_thread(psutil.Process(one.pid).wait)

    hasty = GpuPatience(look_every_s=0.01, release_every_s=0.01, release_within_s=0)
    after = await kit.open_fleet(known(kit, one, "v-1"), gpus=machine, gpu_patience=hasty)

    await once_free(after)
    await asyncio.to_thread(psutil.wait_procs, [engine], timeout=60)
    assert not engine.is_running()
