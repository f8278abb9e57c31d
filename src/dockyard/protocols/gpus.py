"""What the local fleet asks of whatever knows the machine's GPUs: one reading of all of them. NVML is one that does."""

from dataclasses import dataclass
from typing import Protocol

from dockyard.domain.gpus import Capability


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that has memory on a GPU. `used_bytes` None: the driver does not tell, as in some containers."""

    pid: int
    used_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU at one moment. `free_bytes` + `used_bytes` may be less than all: the driver keeps some for itself.

    `fault`: why it cannot be used, though it is there. Its numbers may then be 0.
    """

    uuid: str
    index: int
    model: str
    total_bytes: int
    free_bytes: int
    used_bytes: int
    capability: Capability
    processes: tuple[GpuProcess, ...] = ()
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading:
    """`driver`: its version. `trouble`: there is a driver, and why it cannot be asked. Neither: there is none."""

    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    trouble: str | None = None


class GpuReader(Protocol):
    def read(self) -> GpuReading:
        """All GPUs, in the order of their index. Blocks for milliseconds, may be called on any thread, never raises."""
        ...


class NoGpus:
    """Implements `GpuReader` for a machine whose GPUs are to be left alone."""

    def read(self) -> GpuReading:
        return GpuReading()
