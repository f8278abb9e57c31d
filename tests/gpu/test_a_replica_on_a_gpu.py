"""A real replica on a real GPU: what the driver tells of it, and that its memory is free again after kill -9."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.contract.engine_rig import Case, spec_of

from dockyard.clock import SystemClock
from dockyard.domain.devices import GIB, MIB
from dockyard.engine_builds import without_gpus
from dockyard.fleets.local.fleet import LocalFleet
from dockyard.fleets.local.gpus import GpuPatience
from dockyard.fleets.local.nvml import Nvml
from dockyard.protocols.fleet import ReplicaStatus

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]


@pytest.mark.parametrize("engine", ["ctranslate2", "transformers"])
async def test_it_takes_its_gpu_and_leaves_it(engine: str, tmp_path: Path, converted_models: Path) -> None:
    if why := without_gpus(engine):
        pytest.skip(why)
    spec = spec_of(Case(engine, "gpt2-kjv"), converted_models)
    spec.device, spec.compute_type, spec.gpus, spec.gpu_bytes = "cuda", "float16", 1, GIB
    fleet = LocalFleet(tmp_path / "run", SystemClock(), gpus=Nvml(), gpu_patience=GpuPatience(look_every_s=0.2))
    await fleet.open(())
    try:
        await fleet.start(spec)
        ready = await _once(
            fleet, spec.replica_id, lambda status: bool(status.health and status.health.phase == "ready")
        )
        await fleet.gpus.look()
        (held,) = [gpu for gpu in fleet.host().gpus if gpu.replica_id == spec.replica_id]
        assert ready.gpus == (held.uuid,)
        free_while_held = held.free_bytes
        assert ready.pid is not None
        os.kill(ready.pid, signal.SIGKILL)
        await _once(fleet, spec.replica_id, lambda status: not status.alive)
        async with asyncio.timeout(60):
            while any(gpu.replica_id for gpu in fleet.host().gpus):
                fleet.changed.clear()
                await fleet.changed.wait()
        (freed,) = [gpu for gpu in fleet.host().gpus if gpu.uuid == held.uuid]
        assert freed.free_bytes >= free_while_held + 64 * MIB
    finally:
        await fleet.close(stop_replicas=True)


async def _once(fleet: LocalFleet, replica_id: str, holds: Callable[[ReplicaStatus], bool]) -> ReplicaStatus:
    async with asyncio.timeout(120):
        while not holds(fleet.statuses()[replica_id]):
            fleet.changed.clear()
            await fleet.changed.wait()
    return fleet.statuses()[replica_id]
