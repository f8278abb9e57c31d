"""A server in short: starts a replica, writes what it would have recorded, and waits to be killed.

Arguments: run directory, the WorkerSpec as JSON, "warm" (from a spare) or "cold", the worker's command.
"""

import asyncio
import sys
from pathlib import Path

import msgspec

from dockyard.clock import SystemClock
from dockyard.fleets.local.fleet import LocalFleet
from dockyard.protocols.generation import WorkerSpec


async def main(run_dir: str, spec_json: str, start: str, *command: str) -> None:
    fleet = LocalFleet(Path(run_dir), SystemClock(), command=command)
    await fleet.open([])
    spec = msgspec.json.decode(spec_json, type=WorkerSpec)
    if start == "warm":
        fleet.keep_warm([spec.engine])
        while spec.engine not in fleet.warm():
            fleet.changed.clear()
            await fleet.changed.wait()
    await fleet.start(spec)
    while True:
        fleet.changed.clear()
        status = fleet.statuses()[spec.replica_id]
        if status.health is not None and status.health.phase == "ready":
            break
        await fleet.changed.wait()
    record = {"pid": status.pid, "process_started_at": status.process_started_at, "socket": status.address.socket}
    told = {"replica": record, "spare": fleet.warm().get(spec.engine)}
    sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
