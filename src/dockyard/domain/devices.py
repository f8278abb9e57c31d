"""The published device types, what the host has, and how the one stands in for the other."""

from dataclasses import dataclass

from dockyard.errors import Invalid, Reason

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Device:
    """A published device type. GPU memory in MiB each, host memory in GiB, price in US dollars per hour.

    Prices: on-demand Linux, us-east-1, as published by the provider; an estimate for the dry run, not a bill.
    """

    name: str
    gpus: int
    gpu: str
    gpu_memory_mib: int
    vcpus: int
    memory_gib: int
    usd_per_hour: float

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
        Device("g4dn.xlarge", 1, "T4", 16384, 4, 16, 0.526),
        Device("g5.xlarge", 1, "A10G", 22888, 4, 16, 1.006),
        Device("g5.2xlarge", 1, "A10G", 22888, 8, 32, 1.212),
        Device("g6e.xlarge", 1, "L40S", 45776, 4, 32, 1.861),
        Device("g4dn.12xlarge", 4, "T4", 16384, 48, 192, 3.912),
        Device("g5.12xlarge", 4, "A10G", 22888, 48, 192, 5.672),
        Device("g5.48xlarge", 8, "A10G", 22888, 192, 768, 16.288),
        Device("g4dn.metal", 8, "T4", 16384, 96, 384, 7.824),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The machine: logical cores, memory in bytes, and the memory of each GPU in bytes."""

    cores: int
    memory_bytes: int
    available_bytes: int
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a replica runs and how that is told."""

    kind: str  # "cpu" or "cuda"
    gpus: int
    runs_on: str


def place(device: Device, host: Host, *, strict: bool) -> Placement:
    """The host stands in for the device: its GPUs if it has enough of them, else its CPU; `strict` refuses instead."""
    if len(host.gpus) >= device.gpus:
        return Placement(kind="cuda", gpus=device.gpus, runs_on=f"{device.gpus} GPU (standing in for {device.name})")
    if strict:
        raise Invalid(
            f"deviceType {device.name} needs {device.gpus} GPU(s) and this host has {len(host.gpus)}; "
            "choose another device, or unset DOCKYARD_DEVICES=strict to let the CPU stand in",
            reason=Reason.DEVICE_NOT_AVAILABLE,
            field="deviceType",
        )
    return Placement(kind="cpu", gpus=0, runs_on=f"cpu (standing in for {device.name})")
