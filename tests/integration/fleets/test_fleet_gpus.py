"""Replicas on GPUs, as real processes: what they see, and when what they had is given out again."""

import asyncio
import signal
from typing import TYPE_CHECKING

import psutil
import pytest

from dockyard.domain.devices import GIB
from dockyard.errors import Failed, Reason
from dockyard.fleets.fake_gpus import FakeGpus
from dockyard.fleets.local.fleet import WORKER_COMMAND, LocalFleet
from dockyard.fleets.local.gpus import GpuPatience
from dockyard.protocols.fleet import ReplicaStatus
from dockyard.protocols.generation import WorkerSpec

if TYPE_CHECKING:
    from conftest import Kit

QUICK = GpuPatience(look_every_s=0.01, release_every_s=0.01)


@pytest.fixture
def machine() -> FakeGpus:
    machine = FakeGpus()
    machine.add()
    return machine


def on_gpus(kit: "Kit", engine: str = "ready", count: int = 1) -> WorkerSpec:
    spec = kit.spec(engine)
    spec.device, spec.gpus, spec.gpu_bytes = "cuda", count, 10 * GIB
    return spec


async def started(kit: "Kit", fleet: LocalFleet, spec: WorkerSpec) -> ReplicaStatus:
    await fleet.start(spec)
    return await kit.once_in_phase(fleet, spec.replica_id, "ready")


def environment_of(status: ReplicaStatus) -> dict[str, str]:
    return psutil.Process(status.pid).environ()


async def test_each_replica_sees_its_own_gpus_by_their_names(kit: "Kit", machine: FakeGpus) -> None:
    for _ in range(2):
        machine.add()
    fleet = await kit.open_fleet(gpus=machine, gpu_patience=QUICK)
    one = await started(kit, fleet, on_gpus(kit))
    two = await started(kit, fleet, on_gpus(kit, count=2))
    assert len({*one.gpus, *two.gpus}) == 3
    assert environment_of(one)["CUDA_VISIBLE_DEVICES"] == one.gpus[0]
    assert environment_of(two)["CUDA_VISIBLE_DEVICES"] == ",".join(two.gpus)
    assert [gpu.replica_id for gpu in fleet.host().gpus] == [one.replica_id, *2 * [two.replica_id]]


async def test_a_replica_on_the_cpu_sees_no_gpu(kit: "Kit", machine: FakeGpus) -> None:
    fleet = await kit.open_fleet(gpus=machine, gpu_patience=QUICK)
    status = await kit.start_ready(fleet)
    assert environment_of(status)["CUDA_VISIBLE_DEVICES"] == ""
    assert fleet.host().gpus[0].replica_id is None


async def test_who_finds_none_free_is_refused_and_leaves_nothing(kit: "Kit", machine: FakeGpus) -> None:
    fleet = await kit.open_fleet(gpus=machine, gpu_patience=QUICK)
    first = await started(kit, fleet, on_gpus(kit))
    late = on_gpus(kit)
    with pytest.raises(Failed, match=rf"GPU 0 .* is {first.replica_id}'s") as caught:
        await fleet.start(late)
    assert caught.value.reason is Reason.NO_CAPACITY
    assert late.replica_id not in fleet.statuses()
    assert len(list(kit.run_dir.glob("*.sock"))) == 1


async def test_after_kill_9_the_gpu_waits_for_its_memory(kit: "Kit", machine: FakeGpus) -> None:
    fleet = await kit.open_fleet(gpus=machine, gpu_patience=QUICK)
    first = await started(kit, fleet, on_gpus(kit))
    assert first.pid is not None
    machine.use(first.gpus[0], first.pid, 8)
    await fleet.gpus.look()
    assert fleet.host().gpus[0].others_bytes == 0  # it is the replica's own
    kit.send(first, signal.SIGKILL)
    gone = await kit.once_gone(fleet, first.replica_id)
    assert gone.gpus == first.gpus
    await fleet.gpus.look()
    (gpu,) = fleet.host().gpus
    assert gpu.replica_id == first.replica_id
    assert gpu.awaits is not None
    assert f"process(es) {first.pid} of it are still on it" in gpu.awaits
    with pytest.raises(Failed, match="which ends"):
        await fleet.start(on_gpus(kit))
    machine.free(first.gpus[0], first.pid)
    await once_free(fleet)
    assert (await started(kit, fleet, on_gpus(kit))).gpus == first.gpus


async def test_children_of_a_replica_count_as_the_replica(kit: "Kit", machine: FakeGpus) -> None:
    """As vLLM, whose engine is a process of its own."""
    fleet = await kit.open_fleet(gpus=machine, gpu_patience=QUICK)
    status = await started(kit, fleet, on_gpus(kit, "parent"))
    (child,) = psutil.Process(status.pid).children()
    machine.use(status.gpus[0], child.pid, 8)
    await fleet.gpus.look()
    assert fleet.host().gpus[0].others_bytes == 0


async def test_a_crash_loop_gets_the_same_gpu_each_time(kit: "Kit", machine: FakeGpus) -> None:
    fleet = await kit.open_fleet(gpus=machine, gpu_patience=QUICK)
    for _ in range(5):
        spec = on_gpus(kit, "crash-at-load")
        await fleet.start(spec)
        gone = await kit.once_gone(fleet, spec.replica_id)
        assert gone.gpus == (fleet.host().gpus[0].uuid,)
        await once_free(fleet)


async def test_a_replica_that_is_stopped_gives_its_gpu_back(kit: "Kit", machine: FakeGpus) -> None:
    fleet = await kit.open_fleet(gpus=machine, gpu_patience=QUICK)
    first = await started(kit, fleet, on_gpus(kit))
    await fleet.stop(first.replica_id, grace_s=60)
    await once_free(fleet)


async def test_an_adopted_replica_keeps_its_gpus(kit: "Kit", machine: FakeGpus) -> None:
    before = await kit.open_fleet(gpus=machine, gpu_patience=QUICK)
    first = await started(kit, before, on_gpus(kit))
    assert first.pid is not None
    machine.use(first.gpus[0], first.pid, 8)
    await before.close(stop_replicas=False)

    after = await kit.open_fleet(kit.known(first), gpus=machine, gpu_patience=QUICK)

    assert after.statuses()[first.replica_id].gpus == first.gpus
    (gpu,) = after.host().gpus
    assert (gpu.replica_id, gpu.others_bytes, gpu.ending) == (first.replica_id, 0, False)
    with pytest.raises(Failed):
        await after.start(on_gpus(kit))
    kit.send(first, signal.SIGKILL)
    await kit.once_gone(after, first.replica_id)
    machine.free(first.gpus[0])
    await once_free(after)


async def test_one_that_did_not_outlive_its_server_is_waited_for(kit: "Kit", machine: FakeGpus) -> None:
    before = await kit.open_fleet(gpus=machine, gpu_patience=QUICK)
    first = await started(kit, before, on_gpus(kit))
    assert first.pid is not None
    machine.use(first.gpus[0], first.pid, 8)
    await before.close(stop_replicas=False)
    process = psutil.Process(first.pid)
    process.kill()
    await asyncio.to_thread(process.wait)

    after = await kit.open_fleet(kit.known(first), gpus=machine, gpu_patience=QUICK)

    assert not after.statuses()[first.replica_id].alive
    assert after.host().gpus[0].awaits == "GPU 0 (NVIDIA A10G): 8.00 GiB of its memory are not free yet"
    machine.free(first.gpus[0])
    await once_free(after)


async def test_a_replica_that_is_forked_of_a_spare_sees_its_gpu(
    kit: "Kit", machine: FakeGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spare has none; each of its children has its own, set before anything could ask for it."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    kit.command = WORKER_COMMAND
    fleet = await kit.open_fleet(gpus=machine, gpu_patience=QUICK)
    fleet.keep_warm(["echo"])
    spare = await kit.once_warm(fleet, "echo")
    spec = on_gpus(kit, "echo")
    status = await started(kit, fleet, spec)
    assert status.pid is not None
    assert psutil.Process(status.pid).ppid() == spare.pid
    assert "CUDA_VISIBLE_DEVICES" not in spare.environ()
    log = "\n".join(fleet.logs(spec.replica_id))
    assert f"gpus={status.gpus[0]}" in log


async def once_free(fleet: LocalFleet) -> None:
    async with asyncio.timeout(60):
        while any(gpu.replica_id for gpu in fleet.host().gpus):
            fleet.changed.clear()
            await fleet.changed.wait()
