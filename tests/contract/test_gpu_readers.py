"""What everything that reads GPUs promises: NVML over a script, NVML on a machine that has some, and the fake ones."""

import pytest
from tests.scripted_nvml import ScriptedGpu, ScriptedNvml

from dockyard.domain.devices import GIB, MIB
from dockyard.fleets.fake_gpus import FakeGpus
from dockyard.fleets.local.nvml import Nvml, only_visible
from dockyard.protocols.gpus import Gpu, GpuProcess, GpuReader


def fake() -> GpuReader:
    gpus = FakeGpus()
    first = gpus.add()
    gpus.add("NVIDIA T4", 15, (7, 5))
    gpus.use(first, 4711, 2)
    return gpus


def scripted() -> GpuReader:
    first = ScriptedGpu("GPU-1", "NVIDIA A10G", 24 * GIB, used=2 * GIB, reserved=300 * MIB, compute=[(4711, 2 * GIB)])
    return Nvml(library=ScriptedNvml(first, ScriptedGpu("GPU-2", "NVIDIA T4", 15 * GIB, capability=(7, 5))))


@pytest.fixture(params=[fake, scripted, pytest.param(Nvml, marks=pytest.mark.gpu)], ids=["fake", "scripted", "nvml"])
def reader(request: pytest.FixtureRequest) -> GpuReader:
    return request.param()


def test_a_reading_tells_all_of_every_gpu(reader: GpuReader) -> None:
    reading = reader.read()
    assert reading.trouble is None
    assert reading.driver
    assert reading.gpus
    assert len({gpu.uuid for gpu in reading.gpus}) == len(reading.gpus)
    assert [gpu.index for gpu in reading.gpus] == sorted(gpu.index for gpu in reading.gpus)
    for gpu in reading.gpus:
        assert gpu.uuid.startswith("GPU-")
        assert gpu.model
        assert gpu.capability >= (1, 0)
        assert 0 < gpu.free_bytes + gpu.used_bytes <= gpu.total_bytes
        assert all(process.pid > 0 and (process.used_bytes or 0) <= gpu.total_bytes for process in gpu.processes)


def test_gpus_keep_their_names(reader: GpuReader) -> None:
    assert [gpu.uuid for gpu in reader.read().gpus] == [gpu.uuid for gpu in reader.read().gpus]


def test_a_machine_without_a_driver_has_no_gpus_and_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dockyard.fleets.local.nvml._DRIVER_LIBRARY", "libno-such-driver.so.1")
    library = ScriptedNvml()
    library.broken = ScriptedNvml.NVML_ERROR_LIBRARY_NOT_FOUND
    for reader in (Nvml(), Nvml(library=library), FakeGpus()):
        reading = reader.read()
        assert (reading.gpus, reading.driver, reading.trouble) == ((), reading.driver, None)


def test_a_broken_driver_is_told_with_what_mends_it_and_asked_anew() -> None:
    library = ScriptedNvml(ScriptedGpu("GPU-1", "NVIDIA T4", GIB))
    reader = Nvml(library=library)
    library.broken = ScriptedNvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
    trouble = reader.read().trouble
    assert trouble is not None
    assert "reboot the machine" in trouble
    library.broken = None
    assert [gpu.uuid for gpu in reader.read().gpus] == ["GPU-1"]
    assert library.inits == 2
    library.broken = ScriptedNvml.NVML_ERROR_DRIVER_NOT_LOADED
    assert "modprobe" in (reader.read().trouble or "")


def test_one_lost_gpu_leaves_the_others() -> None:
    lost = ScriptedGpu("GPU-1", "NVIDIA T4", GIB, error=ScriptedNvml.NVML_ERROR_GPU_IS_LOST)
    split = ScriptedGpu("GPU-3", "NVIDIA H100", GIB, mig=1, capability=(9, 0))
    old = ScriptedGpu("GPU-4", "Tesla K80", GIB, capability=(3, 7))
    reading = Nvml(library=ScriptedNvml(lost, ScriptedGpu("GPU-2", "NVIDIA T4", GIB, mig=0), split, old)).read()
    faults = [gpu.fault or "" for gpu in reading.gpus]
    assert "fallen off the bus" in faults[0]
    assert faults[1] == ""
    assert "MIG" in faults[2]
    assert "compute capability is 3.7, and the engines need 7.0" in faults[3]


def test_an_old_driver_tells_less_and_enough() -> None:
    library = ScriptedNvml(ScriptedGpu("GPU-1", "T4", 15 * GIB, used=GIB, reserved=MIB, compute=[(7, None)]))
    library.old = True
    (gpu,) = Nvml(library=library).read().gpus
    assert (gpu.uuid, gpu.used_bytes, gpu.free_bytes) == ("GPU-1", GIB + MIB, 14 * GIB - MIB)
    assert gpu.processes == (GpuProcess(7, None),)


def test_a_process_that_computes_and_draws_is_one() -> None:
    gpu = ScriptedGpu("GPU-1", "T4", 15 * GIB, compute=[(7, GIB), (8, MIB)], graphics=[(7, 2 * GIB), (9, MIB)])
    (read,) = Nvml(library=ScriptedNvml(gpu)).read().gpus
    assert read.processes == (GpuProcess(7, 2 * GIB), GpuProcess(8, MIB), GpuProcess(9, MIB))


@pytest.mark.parametrize(
    ("visible", "indices"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("1", [1]),
        ("2,0", [0, 2]),
        ("0, 7, 1", [0]),  # CUDA's rule: the list ends at the first name that it does not know
        ("GPU-b", [1]),
        ("GPU-", []),
    ],
)
def test_the_servers_own_visible_devices_count(visible: str | None, indices: list[int]) -> None:
    gpus = [
        Gpu(
            uuid=f"GPU-{'abc'[index]}",
            index=index,
            model="T4",
            total_bytes=1,
            free_bytes=1,
            used_bytes=0,
            capability=(7, 5),
        )
        for index in range(3)
    ]
    assert [gpu.index for gpu in only_visible(gpus, visible)] == indices
