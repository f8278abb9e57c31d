"""An engine with an interpreter of its own: its replicas are run by that one, and no spare is kept of it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from dockyard.domain.devices import GIB, Host
from dockyard.fleets.local.fleet import WORKER_COMMAND

if TYPE_CHECKING:
    from conftest import Kit


async def test_its_replicas_run_there(kit: "Kit", tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    paths = [path for path in sys.path if path]
    kit.command = WORKER_COMMAND
    fleet = await kit.open_fleet(
        host=lambda: Host(cores=2, memory_bytes=8 * GIB, available_bytes=4 * GIB),
        elsewhere=lambda engine: (python, {"PYTHONPATH": ":".join(paths)}) if engine == "echo" else None,
    )
    fleet.keep_warm(["echo"])
    status = await kit.start_ready(fleet, "echo")
    assert psutil.Process(status.pid).cmdline()[0] == str(python)
    assert fleet.warm() == {}
