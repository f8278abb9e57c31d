"""The device types, and how this host stands in for each."""

from pydantic import Field

from dockyard.api.wire.base import Listing, WireOut
from dockyard.domain.devices import Device, Host, place
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


class DevicesOut(Listing):
    devices: tuple[DeviceOut, ...]
