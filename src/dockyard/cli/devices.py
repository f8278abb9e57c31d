"""dockyard devices."""

import typer

from dockyard.cli.command import Session, command
from dockyard.cli.output import cells


def register(app: typer.Typer) -> None:
    command(app, "devices")(devices)


def devices(session: Session) -> None:
    """List the device types, and what stands in for each on the server's host."""
    document = session.client.get("devices")
    columns = ("DEVICE", "GPUS", "GPU", "GPU MEMORY (MIB)", "VCPUS", "MEMORY (GIB)", "USD/H", "RUNS ON")
    paths = ("deviceType", "gpus", "gpu", "gpuMemoryMiB", "vcpus", "memoryGiB", "usdPerHour", "runsOn")
    rows = [cells(device, *paths) for device in document["devices"]]
    session.out.listing(document, columns, rows, "no devices")
