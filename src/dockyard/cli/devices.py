"""dockyard devices."""

from typing import Annotated, Any

import typer

from dockyard.cli.command import Session, command
from dockyard.cli.output import cells

_TYPES = ("DEVICE", "GPUS", "GPU", "GPU MEMORY (MIB)", "VCPUS", "MEMORY (GIB)", "USD/H", "RUNS ON")
_TYPE_FIELDS = ("deviceType", "gpus", "gpu", "gpuMemoryMiB", "vcpus", "memoryGiB", "usdPerHour", "runsOn")
_GPUS = ("GPU OF THE HOST", "MODEL", "MEMORY (MIB)", "FREE (MIB)", "OTHERS (MIB)", "STATE", "REPLICA", "NOTE")
_GPU_FIELDS = ("index", "model", "memoryMiB", "freeMiB", "usedByOthersMiB", "state", "replicaId", "message")


def register(app: typer.Typer) -> None:
    command(app, "devices")(devices)


def devices(
    session: Session,
    gpus: Annotated[bool, typer.Option("--gpus", help="The GPUs of the server's host, and who has them.")] = False,
) -> None:
    """List the device types and what stands in for each on the server's host; on a terminal also the host's GPUs."""
    document = session.client.get("devices")
    if document.get("gpuMessage"):
        session.out.warn([f"the host's GPUs are not used: {document['gpuMessage']}"])
    if not gpus:
        types = [cells(device, *_TYPE_FIELDS) for device in document["devices"]]
        session.out.listing(document, _TYPES, types, "no devices")
    found: list[dict[str, Any]] = document.get("hostGpus", [])
    if gpus or (found and session.out.terminal):
        rows = [cells(gpu, *_GPU_FIELDS) for gpu in found]
        session.out.listing(found, _GPUS, rows, "the server's host has no GPU of NVIDIA's with a driver that answers")
