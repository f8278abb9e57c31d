"""What of `pynvml` the adapter calls, over a script: the same names, errors and odd corners, without a driver."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


class NVMLError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(f"error {value}")
        self.value = value


@dataclass
class ScriptedGpu:
    uuid: str
    name: str
    total: int
    used: int = 0
    reserved: int = 0
    capability: tuple[int, int] = (8, 6)
    mig: int | None = None
    compute: list[tuple[int, int | None]] = field(default_factory=list[tuple[int, int | None]])
    graphics: list[tuple[int, int | None]] = field(default_factory=list[tuple[int, int | None]])
    error: int | None = None  # of any question about it


class ScriptedNvml:
    """Stands for the module. `broken`: the error of the next starts; `old`: a driver without the newer calls."""

    NVMLError = NVMLError
    NVML_ERROR_UNINITIALIZED = 1
    NVML_ERROR_NOT_SUPPORTED = 3
    NVML_ERROR_NO_PERMISSION = 4
    NVML_ERROR_DRIVER_NOT_LOADED = 9
    NVML_ERROR_LIBRARY_NOT_FOUND = 12
    NVML_ERROR_FUNCTION_NOT_FOUND = 13
    NVML_ERROR_GPU_IS_LOST = 15
    NVML_ERROR_RESET_REQUIRED = 16
    NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18
    NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25
    nvmlMemory_v2 = 0x02000028

    def __init__(self, *gpus: ScriptedGpu) -> None:
        self.gpus = list(gpus)
        self.broken: int | None = None
        self.old = False
        self.inits = 0

    def nvmlInit(self) -> None:
        self.inits += 1
        if self.broken is not None:
            raise NVMLError(self.broken)

    def nvmlDeviceGetCount(self) -> int:
        if self.broken is not None:
            raise NVMLError(self.broken)
        return len(self.gpus)

    def nvmlSystemGetDriverVersion(self) -> str:
        return "555.42.02"

    def nvmlDeviceGetHandleByIndex(self, index: int) -> ScriptedGpu:
        gpu = self.gpus[index]
        if gpu.error is not None:
            raise NVMLError(gpu.error)
        return gpu

    def nvmlDeviceGetUUID(self, gpu: ScriptedGpu) -> str | bytes:
        return gpu.uuid.encode() if self.old else gpu.uuid

    def nvmlDeviceGetName(self, gpu: ScriptedGpu) -> str:
        return gpu.name

    def nvmlDeviceGetMemoryInfo(self, gpu: ScriptedGpu, version: int | None = None) -> Any:
        free = gpu.total - gpu.reserved - gpu.used
        if version is None:  # the first form counts what is reserved as used
            return SimpleNamespace(total=gpu.total, free=free, used=gpu.used + gpu.reserved)
        if self.old:
            raise NVMLError(self.NVML_ERROR_FUNCTION_NOT_FOUND)
        return SimpleNamespace(total=gpu.total, free=free, used=gpu.used, reserved=gpu.reserved)

    def nvmlDeviceGetCudaComputeCapability(self, gpu: ScriptedGpu) -> list[int]:
        return list(gpu.capability)

    def nvmlDeviceGetComputeRunningProcesses(self, gpu: ScriptedGpu) -> list[Any]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in gpu.compute]

    def nvmlDeviceGetGraphicsRunningProcesses(self, gpu: ScriptedGpu) -> list[Any]:
        if self.old:
            raise NVMLError(self.NVML_ERROR_NOT_SUPPORTED)
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in gpu.graphics]

    def nvmlDeviceGetMigMode(self, gpu: ScriptedGpu) -> list[int]:
        if gpu.mig is None:
            raise NVMLError(self.NVML_ERROR_NOT_SUPPORTED)
        return [gpu.mig, gpu.mig]
