"""The device types, and how this host stands in for each."""

from typing import Literal

from pydantic import Field

from dockyard.api.wire.base import Listing, WireOut
from dockyard.domain.devices import MIB, Device, Host, place
from dockyard.domain.gpus import HostGpu
from dockyard.errors import Invalid


class DeviceOut(WireOut):
    device_type: str
    gpus: int
    gpu: str
    gpu_memory_mib: int = Field(serialization_alias="gpuMemoryMiB", description="Of each GPU.")
    vcpus: int
    memory_gib: int = Field(serialization_alias="memoryGiB")
    usd_per_hour: float = Field(description="The provider's published on-demand price, for estimates.")
    available: bool = Field(description="Whether a deploy on it is accepted here.")
    runs_on: str | None = Field(description="What would really run the replica.")
    message: str | None = Field(description="Why it is not available.")

    @classmethod
    def of(cls, device: Device, host: Host, *, strict: bool) -> "DeviceOut":
        try:
            runs_on, message = place(device, host, strict=strict).runs_on, None
        except Invalid as error:
            runs_on, message = None, error.message
        return cls(
            device_type=device.name,
            gpus=device.gpus,
            gpu=device.gpu,
            gpu_memory_mib=device.gpu_memory_mib,
            vcpus=device.vcpus,
            memory_gib=device.memory_gib,
            usd_per_hour=device.usd_per_hour,
            available=runs_on is not None,
            runs_on=runs_on,
            message=message,
        )


class HostGpuOut(WireOut):
    index: int = Field(description="As nvidia-smi numbers it.")
    uuid: str
    model: str
    memory_mib: int = Field(serialization_alias="memoryMiB")
    free_mib: int = Field(serialization_alias="freeMiB")
    used_by_others_mib: int = Field(
        serialization_alias="usedByOthersMiB", description="By processes that are no replicas of this server."
    )
    compute_capability: str
    replica_id: str | None = Field(description="The replica that has it, or one of those that share it.")
    state: Literal["free", "taken", "ending", "not used"] = Field(
        description="`ending`: who has it is on the way out, or is gone and the memory is not free yet."
    )
    message: str | None = Field(description="What is waited for, or why it is not used.")

    @classmethod
    def of(cls, gpu: HostGpu) -> "HostGpuOut":
        taken: Literal["free", "taken", "ending"] = "free" if gpu.replica_id is None else "taken"
        return cls(
            index=gpu.index,
            uuid=gpu.uuid,
            model=gpu.model,
            memory_mib=gpu.total_bytes // MIB,
            free_mib=gpu.free_bytes // MIB,
            used_by_others_mib=gpu.others_bytes // MIB,
            compute_capability=".".join(map(str, gpu.capability)),
            replica_id=gpu.replica_id,
            state="not used" if gpu.fault else "ending" if gpu.ending else taken,
            message=gpu.fault or gpu.awaits,
        )


class DevicesOut(Listing):
    devices: tuple[DeviceOut, ...]
    host_gpus: tuple[HostGpuOut, ...] = Field(description="The GPUs of the server's host.")
    gpu_driver: str | None = Field(description="Version of the host's GPU driver; null where there is none.")
    gpu_message: str | None = Field(description="Why the host's GPUs cannot be asked.")
