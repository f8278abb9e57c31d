"""GPUs are one replica's at a time, until its memory is free again; what others do on them counts."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from dockyard.domain.devices import GIB
from dockyard.errors import Failed, Reason
from dockyard.fleets.fake_gpus import FakeGpus
from dockyard.fleets.local.gpus import GpuPatience, Gpus
from dockyard.protocols.generation import Adapter

NEVER = GpuPatience(look_every_s=3600, release_every_s=3600)
OTHERS = os.getpid()  # any that lives
GONE = 2**22 + 1  # above the largest pid that Linux gives


class StepClock:
    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)

    def monotonic(self) -> float:
        return self.at


class Engines:
    """`pids`: of the one on each GPU."""

    def __init__(self) -> None:
        self.pids: dict[str, int] = {}
        self.killed: list[int] = []

    def find(self, gpu_ids: Sequence[str]) -> int | None:
        return self.pids.get(gpu_ids[0])

    def kill(self, pid: int) -> None:
        self.killed.append(pid)


def seat(version: str, group: str = "g") -> Adapter:
    return Adapter(folder="", rank=8, version_id=version, group=group)


@pytest.fixture(scope="module")
def ours() -> Iterator[int]:
    """A process that leads its session, as a replica does."""
    with subprocess.Popen(["sleep", "3600"], start_new_session=True) as process:
        yield process.pid
        process.kill()


@pytest.fixture
def engines() -> Engines:
    return Engines()


@pytest.fixture
def clock() -> StepClock:
    return StepClock()


@pytest.fixture
def machine() -> FakeGpus:
    machine = FakeGpus()
    machine.add()
    return machine


@pytest.fixture
async def gpus(machine: FakeGpus, clock: StepClock, engines: Engines) -> AsyncIterator[Gpus]:
    made = Gpus(machine, clock, NEVER, engines)
    await made.open()
    yield made
    await made.close()


async def test_a_gpu_is_given_out_once_and_the_refusal_says_who_has_it(gpus: Gpus, machine: FakeGpus) -> None:
    (uuid,) = await gpus.take("rp-1", 1, 10 * GIB)
    assert gpus.seen()[0].replica_id == "rp-1"
    with pytest.raises(Failed, match=r"GPU 0 .* is rp-1's") as caught:
        await gpus.take("rp-2", 1, 10 * GIB)
    assert caught.value.reason is Reason.NO_CAPACITY
    other = machine.add()
    assert await gpus.take("rp-2", 1, 10 * GIB) == (other,)
    gpus.drop("rp-1")
    assert await gpus.take("rp-3", 1, 10 * GIB) == (uuid,)


async def test_two_who_come_at_once_get_different_ones(gpus: Gpus, machine: FakeGpus) -> None:
    machine.add()
    one, two = await asyncio.gather(gpus.take("rp-1", 1, GIB), gpus.take("rp-2", 1, GIB))
    assert one != two


async def test_what_others_use_is_not_given_out(gpus: Gpus, machine: FakeGpus) -> None:
    uuid = gpus.seen()[0].uuid
    machine.use(uuid, OTHERS, 15)  # since the last look
    with pytest.raises(Failed, match=r"has 7\.50 of 22\.50 GiB free, 15\.00 GiB are used by others"):
        await gpus.take("rp-1", 1, 10 * GIB)
    assert gpus.seen()[0].others_bytes == 15 * GIB
    assert await gpus.take("rp-1", 1, 7 * GIB) == (uuid,)
    assert gpus.free_share([uuid]) == pytest.approx(7.5 / 22.5)


async def test_memory_of_an_ended_replica_is_waited_for(gpus: Gpus, machine: FakeGpus, ours: int) -> None:
    changes: list[None] = []
    gpus.on_change = lambda: changes.append(None)
    (uuid,) = await gpus.take("rp-1", 1, GIB)
    gpus.lead("rp-1", ours)
    machine.use(uuid, ours, 3)
    await gpus.look()
    assert gpus.seen()[0].others_bytes == 0
    gpus.note_ended(())
    await gpus.look()
    (seen,) = gpus.seen()
    assert (seen.replica_id, seen.ending) == ("rp-1", True)
    assert seen.awaits == f"GPU 0 (NVIDIA A10G): process(es) {ours} of it are still on it"
    machine.hide(uuid, ours)  # the process is listed no more, its memory is still taken
    await gpus.look()
    assert gpus.seen()[0].awaits == "GPU 0 (NVIDIA A10G): 3.00 GiB of its memory are not free yet"
    changes.clear()
    machine.free(uuid)
    await gpus.look()
    assert gpus.seen()[0].replica_id is None
    assert changes


async def test_memory_that_others_take_meanwhile_is_not_waited_for(gpus: Gpus, machine: FakeGpus) -> None:
    (uuid,) = await gpus.take("rp-1", 1, GIB)
    machine.use(uuid, OTHERS, 5)
    gpus.note_ended(())
    await gpus.look()
    assert (gpus.seen()[0].replica_id, gpus.seen()[0].others_bytes) == (None, 5 * GIB)


async def test_in_a_container_what_was_there_before_tells(gpus: Gpus, machine: FakeGpus) -> None:
    """The driver lists pids of the host, which mean nothing here."""
    uuid = gpus.seen()[0].uuid
    machine.use(uuid, GONE, 1)
    await gpus.take("rp-1", 1, GIB)
    machine.use(uuid, GONE + 1, 3)  # the replica's, by a number that nobody here knows
    gpus.note_ended(())
    await gpus.look()
    assert gpus.seen()[0].awaits == "GPU 0 (NVIDIA A10G): 3.00 GiB of its memory are not free yet"
    machine.free(uuid, GONE + 1)
    await gpus.look()
    assert gpus.seen()[0].replica_id is None


async def test_memory_that_never_comes_back_is_given_up_and_counts_as_others(
    gpus: Gpus, machine: FakeGpus, clock: StepClock
) -> None:
    (uuid,) = await gpus.take("rp-1", 1, GIB)
    machine.use(uuid, GONE, 20)
    gpus.note_ended(())
    clock.at += NEVER.release_within_s - 1
    await gpus.look()
    assert gpus.seen()[0].replica_id == "rp-1"
    clock.at += 1
    with capture_logs() as logs:
        await gpus.look()
    assert [entry["replica"] for entry in logs] == ["rp-1"]
    (seen,) = gpus.seen()
    assert (seen.replica_id, seen.others_bytes) == (None, 20 * GIB)
    with pytest.raises(Failed, match=r"2\.50 of 22\.50 GiB free"):
        await gpus.take("rp-2", 1, 10 * GIB)


async def test_replicas_of_an_earlier_server_keep_theirs(gpus: Gpus, machine: FakeGpus, ours: int) -> None:
    uuid = gpus.seen()[0].uuid
    machine.use(uuid, ours, 3)
    gpus.keep("rp-1", (uuid,), ours)
    await gpus.look()
    assert (gpus.seen()[0].replica_id, gpus.seen()[0].others_bytes) == ("rp-1", 0)
    gpus.note_ended({"rp-1"})
    await gpus.look()
    assert not gpus.seen()[0].ending


async def test_the_watch_sees_what_others_free(machine: FakeGpus, clock: StepClock) -> None:
    uuid = machine.read().gpus[0].uuid
    machine.use(uuid, OTHERS, 20)
    gpus = Gpus(machine, clock, GpuPatience(look_every_s=0.001))
    changed = asyncio.Event()
    gpus.on_change = changed.set
    await gpus.open()
    changed.clear()
    machine.free(uuid)
    await changed.wait()
    assert gpus.seen()[0].free_bytes == gpus.seen()[0].total_bytes
    await gpus.close()


async def test_a_broken_driver_is_told_once_and_waited_for(machine: FakeGpus, clock: StepClock) -> None:
    machine.trouble = "NVML says: driver/library version mismatch"
    gpus = Gpus(machine, clock, NEVER)
    with capture_logs() as logs:
        await gpus.open()
        await gpus.look()
    assert [entry["event"] for entry in logs] == ["the GPUs cannot be used"]
    assert gpus.trouble == machine.trouble
    with pytest.raises(Failed, match="version mismatch"):
        await gpus.take("rp-1", 1, GIB)
    machine.trouble = None
    assert len(await gpus.take("rp-1", 1, GIB)) == 1
    await gpus.close()


async def test_nothing_is_free_while_the_driver_cannot_be_asked(gpus: Gpus, machine: FakeGpus) -> None:
    (uuid,) = await gpus.take("rp-1", 1, GIB)
    machine.use(uuid, GONE, 5)
    machine.trouble = "NVML says: Timeout"
    gpus.note_ended(())
    await gpus.look()
    assert gpus.seen() == ()
    machine.trouble = None
    await gpus.look()
    assert gpus.seen()[0].awaits == "GPU 0 (NVIDIA A10G): 5.00 GiB of its memory are not free yet"


async def test_a_gpu_that_breaks_down_is_told_and_left_out(gpus: Gpus, machine: FakeGpus) -> None:
    machine.break_down(gpus.seen()[0].uuid, "it has fallen off the bus")
    with capture_logs() as logs:
        await gpus.look()
    assert [entry["why"] for entry in logs] == ["it has fallen off the bus"]
    with pytest.raises(Failed, match="is not used: it has fallen off the bus"):
        await gpus.take("rp-1", 1, GIB)


async def test_a_machine_without_gpus_is_looked_at_once(clock: StepClock) -> None:
    machine = FakeGpus()
    gpus = Gpus(machine, clock, GpuPatience(look_every_s=0))
    await gpus.open()
    await asyncio.sleep(0)
    assert machine.reads == 1
    await gpus.close()


async def test_who_joins_an_engine_takes_no_gpu_and_is_told_the_same_share(gpus: Gpus, machine: FakeGpus) -> None:
    uuid = gpus.seen()[0].uuid
    machine.use(uuid, OTHERS, 4.5)
    await gpus.take("rp-1", 1, 10 * GIB, seat("v-1"))
    machine.use(uuid, GONE, 16)  # the engine fills what is left
    assert await gpus.take("rp-2", 1, 10 * GIB, seat("v-2")) == (uuid,)
    assert gpus.free_share([uuid]) == pytest.approx(18 / 22.5)
    for other in (seat("v-1"), seat("v-3", "h"), None):
        with pytest.raises(Failed, match="is rp-1's"):
            await gpus.take("rp-3", 1, GIB, other)
    gpus.note_ending("rp-1")
    assert (gpus.seen()[0].replica_id, gpus.seen()[0].ending) == ("rp-2", False)
    gpus.note_ended({"rp-2"})
    assert await gpus.take("rp-4", 1, 10 * GIB, seat("v-1")) == (uuid,)


async def test_an_engine_keeps_its_gpu_until_it_has_ended_and_may_be_joined_until_then(
    gpus: Gpus, machine: FakeGpus, engines: Engines, clock: StepClock, ours: int
) -> None:
    (uuid,) = await gpus.take("rp-1", 1, GIB, seat("v-1"))
    engines.pids[uuid] = ours
    await gpus.look()
    gpus.note_ended(())
    assert gpus.seen()[0].engine is None  # nobody knows yet whether it lives
    clock.at += 1
    changes: list[None] = []
    gpus.on_change = lambda: changes.append(None)
    await gpus.look()
    assert changes
    (seen,) = gpus.seen()
    assert seen.awaits == "GPU 0 (NVIDIA A10G): the engine that its replicas shared has not ended yet"
    assert seen.engine is not None
    assert await gpus.take("rp-2", 1, GIB, seat("v-1")) == (uuid,)
    assert not gpus.seen()[0].ending
    machine.use(uuid, ours, 3)
    gpus.note_ended(())
    del engines.pids[uuid]
    await gpus.look()
    assert gpus.seen()[0].awaits == f"GPU 0 (NVIDIA A10G): process(es) {ours} of it are still on it"
    machine.free(uuid)
    await gpus.look()
    assert gpus.seen()[0].replica_id is None


async def test_an_engine_that_does_not_end_is_killed(
    gpus: Gpus, machine: FakeGpus, engines: Engines, clock: StepClock, ours: int
) -> None:
    (uuid,) = await gpus.take("rp-1", 1, GIB, seat("v-1"))
    engines.pids[uuid] = ours
    await gpus.look()
    gpus.note_ended(())
    for waited_s, killed in ((29, []), (1, [ours]), (29, [ours])):
        clock.at += waited_s
        await gpus.look()
        assert (engines.killed, gpus.seen()[0].replica_id) == (killed, "rp-1")
    del engines.pids[uuid]
    await gpus.look()
    assert gpus.seen()[0].replica_id is None


async def test_a_start_in_vain_leaves_the_others_and_a_waiting_engine_alone(
    gpus: Gpus, engines: Engines, ours: int
) -> None:
    (uuid,) = await gpus.take("rp-1", 1, GIB, seat("v-1"))
    await gpus.take("rp-2", 1, GIB, seat("v-2"))
    gpus.drop("rp-2")
    assert gpus.seen()[0].replica_id == "rp-1"
    engines.pids[uuid] = ours
    await gpus.look()
    gpus.note_ended(())
    await gpus.look()
    await gpus.take("rp-3", 1, GIB, seat("v-3"))
    gpus.drop("rp-3")
    await gpus.look()
    assert gpus.seen()[0].awaits is not None
    del engines.pids[uuid]
    await gpus.look()
    assert gpus.seen()[0].replica_id is None


async def test_what_an_earlier_server_gave_to_an_engine_is_shared_on(gpus: Gpus, machine: FakeGpus, ours: int) -> None:
    uuid = gpus.seen()[0].uuid
    machine.use(uuid, OTHERS, 4.5)
    machine.use(uuid, ours, 16)
    for replica, version in (("rp-1", "v-1"), ("rp-2", "v-2")):
        gpus.keep(replica, (uuid,), ours, "g", version)
    assert await gpus.take("rp-3", 1, 10 * GIB, seat("v-3")) == (uuid,)
    with pytest.raises(Failed):
        await gpus.take("rp-4", 1, 10 * GIB, seat("v-2"))
