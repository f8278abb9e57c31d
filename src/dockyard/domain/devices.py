"""The published device types, what the host has, and how the one stands in for the other."""

from dataclasses import dataclass, replace

from dockyard.domain.gpus import Capability, HostGpu, stand_ins
from dockyard.errors import Invalid, Reason

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Device:
    """A published device type. GPU memory in MiB each, host memory in GiB, price in US dollars per hour.

    `capability`: what the GPU can compute, in CUDA's numbers.

    Prices: on-demand Linux, us-east-1, as published by the provider; an estimate for the dry run, not a bill.
    """

    name: str
    gpus: int
    gpu: str
    gpu_memory_mib: int
    vcpus: int
    memory_gib: int
    usd_per_hour: float
    capability: Capability

    @property
    def gpu_bytes(self) -> int:
        """Of one GPU."""
        return self.gpu_memory_mib * MIB

    @property
    def total_gpu_bytes(self) -> int:
        return self.gpus * self.gpu_bytes


DEVICES: dict[str, Device] = {
    device.name: device
    for device in (
        Device("g4dn.xlarge", 1, "T4", 16384, 4, 16, 0.526, (7, 5)),
        Device("g5.xlarge", 1, "A10G", 22888, 4, 16, 1.006, (8, 6)),
        Device("g5.2xlarge", 1, "A10G", 22888, 8, 32, 1.212, (8, 6)),
        Device("g6e.xlarge", 1, "L40S", 45776, 4, 32, 1.861, (8, 9)),
        Device("g4dn.12xlarge", 4, "T4", 16384, 48, 192, 3.912, (7, 5)),
        Device("g5.12xlarge", 4, "A10G", 22888, 48, 192, 5.672, (8, 6)),
        Device("g5.48xlarge", 8, "A10G", 22888, 192, 768, 16.288, (8, 6)),
        Device("g4dn.metal", 8, "T4", 16384, 96, 384, 7.824, (7, 5)),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The machine: logical cores, memory in bytes, and its GPUs. `gpu_trouble`: why it has none although it should."""

    cores: int
    memory_bytes: int
    available_bytes: int
    gpus: tuple[HostGpu, ...] = ()
    gpu_driver: str | None = None
    gpu_trouble: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a replica runs and how that is told. `device`: as it is here, with the memory of the GPUs that stand in."""

    kind: str  # "cpu" or "cuda"
    gpus: int
    runs_on: str
    device: Device


def place(device: Device, host: Host, *, strict: bool) -> Placement:
    """The host stands in for the device: its GPUs if it has as many of one kind, else its CPU, which `strict` refuses.

    Whether a model fits those GPUs is `fit.place_model`'s to tell.
    """
    gpus = stand_ins(host.gpus, device.gpus)
    if not gpus:
        faults = "".join(f", GPU {gpu.index} is not used: {gpu.fault}" for gpu in host.gpus if gpu.fault)
        faults += f", {host.gpu_trouble}" if host.gpu_trouble else ""
        return on_the_cpu(device, f"this host has {_count(host)}{faults}", strict=strict)
    least = min(gpus, key=lambda gpu: gpu.total_bytes)
    # Never more than the device has: what fits here must fit there, too.
    memory_mib = min(device.gpu_memory_mib, least.total_bytes // MIB)
    here = replace(device, gpu=least.model, gpu_memory_mib=memory_mib, capability=least.capability)
    return on_gpus(here, device.gpus)


def on_gpus(here: Device, count: int) -> Placement:
    """`here`: the device as this host stands in for it; a replica uses `count` of its GPUs."""
    told = f"{count} × {here.gpu} (standing in for {here.name})"
    return Placement(kind="cuda", gpus=count, runs_on=told, device=here)


def on_the_cpu(device: Device, why: str, *, strict: bool) -> Placement:
    """Since the GPUs do not do, for the reason `why`. Raises `Invalid` (DEVICE_NOT_AVAILABLE) if `strict`."""
    if strict:
        raise Invalid(
            f"deviceType {device.name} needs {device.gpus} GPU(s) and {why}; "
            "choose another device, or unset DOCKYARD_DEVICES=strict to let the CPU stand in",
            reason=Reason.DEVICE_NOT_AVAILABLE,
            field="deviceType",
        )
    return Placement(kind="cpu", gpus=0, runs_on=f"cpu (standing in for {device.name})", device=device)


def _count(host: Host) -> str:
    able = [gpu for gpu in host.gpus if gpu.fault is None]
    kinds = {gpu.model for gpu in able}
    return f"{len(able)} of {len(kinds)} kinds" if len(kinds) > 1 else str(len(able))
