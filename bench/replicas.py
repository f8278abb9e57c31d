"""Replicas of a local fleet without a server: what they are told to be, and the wait until they are it."""

from pathlib import Path
from typing import Any

from bench.processes import BenchFailed
from dockyard.domain.compatibility import compute_type
from dockyard.domain.ids import new_id
from dockyard.domain.spec import EngineName, Quantization
from dockyard.fleets.local.fleet import LocalFleet
from dockyard.protocols.fleet import ReplicaStatus
from dockyard.protocols.generation import WorkerSpec

TOKEN = "bench"


def worker_spec(engine: str, artifact: Path, folder: Path, *, batch: int, threads: int, **others: Any) -> WorkerSpec:
    """Of a decoder on the CPU, int8 on CTranslate2, that never ends a text by itself; `others`: fields by name."""
    quantization = Quantization.INT8_FLOAT16 if engine == EngineName.CTRANSLATE2 else Quantization.NONE
    fields = {
        "replica_id": new_id("rp"),
        "token": TOKEN,
        "engine": str(engine),
        "artifact_dir": str(artifact),
        "model_dir": str(folder),
        "family": "decoder",
        "device": "cpu",
        "compute_type": compute_type(EngineName(engine), quantization, "cpu"),
        "max_batch_size": batch,
        "context_length": 8192,
        "threads": threads,
        "eos_token_ids": [],
    }
    return WorkerSpec(**(fields | others))


async def serving(fleet: LocalFleet, spec: WorkerSpec) -> ReplicaStatus:
    """Start a replica and wait until it is ready. Raises `BenchFailed`."""
    status = await fleet.start(spec)
    while status.health is None or status.health.phase != "ready":
        if not status.alive:
            raise BenchFailed(f"the replica failed: {status.failure}")
        fleet.changed.clear()
        await fleet.changed.wait()
        status = fleet.statuses()[spec.replica_id]
    return status
