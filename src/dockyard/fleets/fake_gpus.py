"""GPUs without GPUs, for tests: processes take and leave memory when told to. Passes the same suite as NVML."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from dockyard.domain.devices import GIB
from dockyard.domain.gpus import Capability
from dockyard.protocols.gpus import Gpu, GpuProcess, GpuReading


@dataclass
class FakeGpus:
    """Implements `protocols.gpus.GpuReader`. `reads` counts the readings; `trouble`: the driver is broken.

    Memory that `use` gives a process stays in use until `free`, whether or not the process lives: it lingers.
    """

    trouble: str | None = None
    driver: str | None = "555.42"
    reads: int = 0
    _gpus: dict[str, Gpu] = field(default_factory=dict[str, Gpu])
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def add(self, model: str = "NVIDIA A10G", memory_gib: float = 22.5, capability: Capability = (8, 6)) -> str:
        """Put a GPU into the machine; returns its UUID."""
        index, memory = next(self._numbers), int(memory_gib * GIB)
        uuid = f"GPU-{index:08d}-fake"
        self._gpus[uuid] = Gpu(
            uuid=uuid,
            index=index,
            model=model,
            total_bytes=memory,
            free_bytes=memory,
            used_bytes=0,
            capability=capability,
        )
        return uuid

    def use(self, uuid: str, pid: int, gib: float, *, told: bool = True) -> None:
        """A process takes memory; `told` False: the driver does not say how much, as in a container."""
        used = int(gib * GIB)
        gpu = self._without(uuid, pid)
        self._put(gpu, used, (*gpu.processes, GpuProcess(pid, used if told else None)))

    def hide(self, uuid: str, pid: int) -> None:
        """The process is listed no more; its memory is still in use."""
        gpu = self._gpus[uuid]
        self._gpus[uuid] = replace(gpu, processes=tuple(p for p in gpu.processes if p.pid != pid))

    def free(self, uuid: str, pid: int | None = None) -> None:
        """What the process has, or all of it, is free."""
        gpu = self._gpus[uuid]
        if pid is not None:
            self._gpus[uuid] = self._without(uuid, pid)
        else:
            self._gpus[uuid] = replace(gpu, free_bytes=gpu.total_bytes, used_bytes=0, processes=())

    def break_down(self, uuid: str, fault: str | None) -> None:
        self._gpus[uuid] = replace(self._gpus[uuid], fault=fault)

    def read(self) -> GpuReading:
        self.reads += 1
        if self.trouble is not None:
            return GpuReading(trouble=self.trouble)
        return GpuReading(gpus=tuple(self._gpus.values()), driver=self.driver if self._gpus else None)

    def _without(self, uuid: str, pid: int) -> Gpu:
        gpu = self._gpus[uuid]
        used = sum(process.used_bytes or 0 for process in gpu.processes if process.pid == pid)
        self._put(gpu, -used, tuple(process for process in gpu.processes if process.pid != pid))
        return self._gpus[uuid]

    def _put(self, gpu: Gpu, more: int, processes: tuple[GpuProcess, ...]) -> None:
        self._gpus[gpu.uuid] = replace(
            gpu, free_bytes=gpu.free_bytes - more, used_bytes=gpu.used_bytes + more, processes=processes
        )
