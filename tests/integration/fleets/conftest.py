"""A local fleet over the scripted worker, and the means to disturb it. Whatever a test leaves behind is ended."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from dockyard.clock import SystemClock
from dockyard.domain.ids import new_id
from dockyard.fleets.local.adoption import end_all, find_workers
from dockyard.fleets.local.fleet import LocalFleet
from dockyard.fleets.local.replica import Patience
from dockyard.protocols.fleet import ReplicaStatus, RunningReplica
from dockyard.protocols.generation import WorkerSpec

SCRIPTED_WORKER = Path(__file__).with_name("scripted_worker.py")
DYING_SERVER = Path(__file__).with_name("server_that_dies.py")
ECHO_MODEL = str(Path(__file__).parents[2] / "models" / "echo")


class Kit:
    """`run_dir` is the fleet's; `command` runs the scripted worker."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.command: tuple[str, ...] = (sys.executable, str(SCRIPTED_WORKER))
        self._fleets: list[LocalFleet] = []
        self._others: list[psutil.Process] = []

    async def open_fleet(self, *known: RunningReplica, patience: Patience | None = None, **options: Any) -> LocalFleet:
        fleet = LocalFleet(self.run_dir, SystemClock(), command=self.command, patience=patience, **options)
        self._fleets.append(fleet)
        await fleet.open(known)
        return fleet

    def spec(self, engine: str, eos_token_ids: list[int] | None = None) -> WorkerSpec:
        return WorkerSpec(
            replica_id=new_id("rp"),
            token="not-a-secret",
            engine=engine,
            artifact_dir=ECHO_MODEL,
            model_dir=ECHO_MODEL,
            family="decoder",
            device="cpu",
            compute_type="none",
            max_batch_size=4,
            context_length=128,
            threads=1,
            eos_token_ids=eos_token_ids or [],
        )

    async def once(self, fleet: LocalFleet, replica_id: str, holds: Callable[[ReplicaStatus], bool]) -> ReplicaStatus:
        """The status as soon as `holds` is true of it; the fleet says when to look."""
        async with asyncio.timeout(60):
            while True:
                fleet.changed.clear()
                status = fleet.statuses()[replica_id]
                if holds(status):
                    return status
                await fleet.changed.wait()

    async def once_in_phase(self, fleet: LocalFleet, replica_id: str, phase: str) -> ReplicaStatus:
        return await self.once(fleet, replica_id, lambda s: s.health is not None and s.health.phase == phase)

    async def once_gone(self, fleet: LocalFleet, replica_id: str) -> ReplicaStatus:
        return await self.once(fleet, replica_id, lambda status: not status.alive)

    async def start_ready(self, fleet: LocalFleet, engine: str = "ready") -> ReplicaStatus:
        spec = self.spec(engine)
        await fleet.start(spec)
        return await self.once_in_phase(fleet, spec.replica_id, "ready")

    async def once_warm(self, fleet: LocalFleet, engine: str, *, other_than: int | None = None) -> psutil.Process:
        """The spare of an engine as soon as it can be forked."""
        async with asyncio.timeout(60):
            while fleet.warm().get(engine, other_than) == other_than:
                fleet.changed.clear()
                await fleet.changed.wait()
        return psutil.Process(fleet.warm()[engine])

    async def dead_server(self, spec: WorkerSpec, *, warm: bool = False) -> tuple[RunningReplica, int | None]:
        """A replica whose server was killed with `kill -9` once it was ready, and the pid of the spare it came from."""
        server = await asyncio.create_subprocess_exec(
            *(sys.executable, str(DYING_SERVER), str(self.run_dir), msgspec.json.encode(spec).decode()),
            *("warm" if warm else "cold", *self.command),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert server.stdout is not None
            told = msgspec.json.decode(await server.stdout.readline())
        finally:
            server.kill()
            await server.wait()
        return RunningReplica(replica_id=spec.replica_id, token=spec.token, **told["replica"]), told["spare"]

    def known(self, status: ReplicaStatus) -> RunningReplica:
        """What the server records of it."""
        assert status.pid is not None
        assert status.process_started_at is not None
        assert status.address.socket is not None
        return RunningReplica(
            replica_id=status.replica_id,
            token=status.address.token,
            pid=status.pid,
            process_started_at=status.process_started_at,
            socket=status.address.socket,
            gpus=status.gpus,
        )

    def send(self, status: ReplicaStatus, number: int) -> None:
        assert status.pid is not None
        os.kill(status.pid, number)

    def end_later(self, pid: int) -> psutil.Process:
        """Have a process of the test's own ended with it."""
        process = psutil.Process(pid)
        self._others.append(process)
        return process

    async def clear(self) -> None:
        for fleet in self._fleets:
            await fleet.close(stop_replicas=True)
        await end_all(find_workers(self.run_dir).values())
        for process in self._others:
            if process.is_running():
                process.kill()
                process.wait()


@pytest.fixture
async def kit(tmp_path: Path) -> AsyncIterator[Kit]:
    kit = Kit(tmp_path / "run")
    yield kit
    await kit.clear()


@pytest.fixture
async def fleet(kit: Kit) -> LocalFleet:
    return await kit.open_fleet()
