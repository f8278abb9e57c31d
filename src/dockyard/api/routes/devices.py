"""The device types."""

from fastapi import APIRouter

from dockyard.api.access import needs
from dockyard.api.route import Ctx, Route
from dockyard.api.wire.devices import DeviceOut, DevicesOut, HostGpuOut
from dockyard.domain.access import Scope
from dockyard.domain.devices import DEVICES

router = APIRouter(route_class=Route, tags=["Devices"])


@router.get("/devices", summary="List device types", operation_id="listDevices", dependencies=[needs(Scope.VIEW)])
async def index(ctx: Ctx) -> DevicesOut:
    """All of them on one page, each with what would stand in for it on this host; and the host's GPUs."""
    host, strict = ctx.host(), ctx.policy.strict_devices
    devices = tuple(DeviceOut.of(device, host, strict=strict) for device in DEVICES.values())
    return DevicesOut(
        devices=devices,
        total=len(devices),
        host_gpus=tuple(HostGpuOut.of(gpu) for gpu in host.gpus),
        gpu_driver=host.gpu_driver,
        gpu_message=host.gpu_trouble,
    )
