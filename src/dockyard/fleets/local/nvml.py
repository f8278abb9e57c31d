"""The machine's GPUs as NVIDIA's management library tells them. The only place that imports `pynvml`."""

import ctypes
import os
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, TypeVar

from dockyard.domain.gpus import OLDEST
from dockyard.protocols.gpus import Gpu, GpuProcess, GpuReading

T = TypeVar("T")

_DRIVER_LIBRARY = "libnvidia-ml.so.1"


class Nvml:
    """Implements `protocols.gpus.GpuReader`. Without a driver there are no GPUs, and nothing is imported.

    `visible`: CUDA_VISIBLE_DEVICES of the server; other GPUs are none of its business. `library`: stands for `pynvml`.
    """

    def __init__(self, *, visible: str | None = None, library: Any = None) -> None:
        self._visible = visible
        self._library = library
        self._open = False

    def read(self) -> GpuReading:
        if self._library is None and not _has_driver():
            return GpuReading()
        try:
            nvml = self._library = self._library or import_module("pynvml")
        except ImportError as error:
            return GpuReading(trouble=f"the GPUs cannot be asked: {error}; pip install nvidia-ml-py")
        try:
            if not self._open:
                nvml.nvmlInit()
                self._open = True
            gpus = [_read(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
            driver = _text(nvml.nvmlSystemGetDriverVersion())
        except nvml.NVMLError as error:
            self._open = False  # whatever it is, the next reading begins anew
            if error.value == nvml.NVML_ERROR_LIBRARY_NOT_FOUND:
                return GpuReading()
            return GpuReading(trouble=_explained(nvml, error))
        return GpuReading(gpus=only_visible(gpus, self._visible), driver=driver)


def only_visible(gpus: Sequence[Gpu], visible: str | None) -> tuple[Gpu, ...]:
    """Those that CUDA_VISIBLE_DEVICES names, by index or by the beginning of a UUID; as in CUDA the first unknown name
    ends the list.
    """
    if visible is None:
        return tuple(gpus)
    named: list[Gpu] = []
    for name in (part.strip() for part in visible.split(",")):
        found = [gpu for gpu in gpus if name and (str(gpu.index) == name or gpu.uuid.startswith(name))]
        if len(found) != 1:
            break
        named.extend(found)
    return tuple(sorted(named, key=lambda gpu: gpu.index))


def _has_driver() -> bool:
    try:
        ctypes.CDLL(_DRIVER_LIBRARY)
    except OSError:
        return False
    return os.name == "posix"


def _read(nvml: Any, index: int) -> Gpu:
    """A GPU that cannot be read any more is told with its fault, so that the others go on."""
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid, model = _text(nvml.nvmlDeviceGetUUID(handle)), _text(nvml.nvmlDeviceGetName(handle))
        total, free, used = _memory(nvml, handle)
        capability = tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle))
        processes = _processes(nvml, handle)
        fault = _fault(nvml, handle, capability)
    except nvml.NVMLError as error:
        if error.value in (nvml.NVML_ERROR_UNINITIALIZED, nvml.NVML_ERROR_DRIVER_NOT_LOADED):
            raise
        return Gpu(
            uuid=f"unreadable-{index}",
            index=index,
            model="unknown",
            total_bytes=0,
            free_bytes=0,
            used_bytes=0,
            capability=(0, 0),
            fault=_explained(nvml, error),
        )
    return Gpu(
        uuid=uuid,
        index=index,
        model=model,
        total_bytes=total,
        free_bytes=free,
        used_bytes=used,
        capability=(capability[0], capability[1]),
        processes=processes,
        fault=fault,
    )


def _memory(nvml: Any, handle: Any) -> tuple[int, int, int]:
    """Total, free, used. Drivers that are not old tell what they reserve apart from what is used."""
    memory = _or(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2), None)
    memory = memory or nvml.nvmlDeviceGetMemoryInfo(handle)
    return int(memory.total), int(memory.free), int(memory.used)


def _processes(nvml: Any, handle: Any) -> tuple[GpuProcess, ...]:
    """Those that compute and those that draw; one that does both is told by its larger number."""
    used: dict[int, int | None] = {}
    for ask in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
        for process in _or(nvml, lambda ask=ask: ask(handle), []):
            known, told = used.get(process.pid), process.usedGpuMemory
            used[process.pid] = told if known is None else max(known, told or 0)
    return tuple(GpuProcess(pid, count) for pid, count in sorted(used.items()))


def _fault(nvml: Any, handle: Any, capability: tuple[int, ...]) -> str | None:
    mig = _or(nvml, lambda: nvml.nvmlDeviceGetMigMode(handle)[0], 0)
    if mig:
        return "it is divided into instances (MIG); switch that off with `nvidia-smi -mig 0`"
    if capability < OLDEST:
        told, least = ".".join(map(str, capability)), ".".join(map(str, OLDEST))
        return f"its compute capability is {told}, and the engines need {least}"
    return None


def _or(nvml: Any, ask: Callable[[], T], otherwise: T) -> T:
    """What not every GPU or driver can tell."""
    try:
        return ask()
    except nvml.NVMLError as error:
        if error.value in (
            nvml.NVML_ERROR_NOT_SUPPORTED,
            nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
            nvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
            nvml.NVML_ERROR_NO_PERMISSION,
        ):
            return otherwise
        raise


def _explained(nvml: Any, error: Any) -> str:
    """The library's words, and what mends it where that is known."""
    mends = {
        nvml.NVML_ERROR_DRIVER_NOT_LOADED: "load the driver (`sudo modprobe nvidia`), or give the container its GPUs",
        nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "the driver was updated while it was loaded: reboot the machine",
        nvml.NVML_ERROR_NO_PERMISSION: "let this user open /dev/nvidia*",
        nvml.NVML_ERROR_GPU_IS_LOST: "it has fallen off the bus: reset it or reboot the machine",
        nvml.NVML_ERROR_RESET_REQUIRED: "it must be reset: `sudo nvidia-smi --gpu-reset`",
    }
    mend = mends.get(error.value)
    return f"NVML says: {str(error).rstrip('.')}" + (f"; {mend}" if mend else "")


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
