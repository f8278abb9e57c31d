"""What is on a GPU: whose it is, and what is still there of those who have ended."""

import os

from dockyard.domain.devices import GIB, MIB
from dockyard.domain.gpus import HostGpu
from dockyard.fleets.local.grants import Grant
from dockyard.protocols.gpus import Gpu

# What the driver itself takes more or less of from one moment to the next. A CUDA context is larger.
_SLACK = 128 * MIB


def host_gpu(gpu: Gpu, grant: Grant | None) -> HostGpu:
    return HostGpu(
        uuid=gpu.uuid,
        index=gpu.index,
        model=gpu.model,
        total_bytes=gpu.total_bytes,
        free_bytes=gpu.free_bytes,
        others_bytes=others(gpu, grant),
        capability=gpu.capability,
        replica_id=grant.name if grant is not None else None,
        ending=grant is not None and grant.ending,
        awaits=lingering(gpu, grant) if grant is not None and grant.ended_at is not None else None,
        engine=grant.shared if grant is not None else None,
        fault=gpu.fault,
    )


def lingering(gpu: Gpu, grant: Grant) -> str | None:
    """What of an ended replica is still on a GPU, as a sentence; None if it is as it was without it.

    Listed processes that live explain their memory. In a container they may not be listed at all, or by numbers that
    mean nothing here: then what was in use before the replica came is what should be in use after it has gone.
    """
    if grant.engine_lives:
        return f"GPU {gpu.index} ({gpu.model}): the engine that its replicas shared has not ended yet"
    still = sorted(process.pid for process in gpu.processes if process.pid in grant.pids)
    if still:
        return f"GPU {gpu.index} ({gpu.model}): process(es) {', '.join(map(str, still))} of it are still on it"
    beside = [process.used_bytes for process in gpu.processes if session_of(process.pid) is not None]
    if None in beside:
        return None  # others are there and nobody tells what they use
    explained = max(grant.before.get(gpu.uuid, 0), sum(used or 0 for used in beside))
    surplus = gpu.used_bytes - explained
    if surplus <= _SLACK:
        return None
    return f"GPU {gpu.index} ({gpu.model}): {surplus / GIB:.2f} GiB of its memory are not free yet"


def others(gpu: Gpu, grant: Grant | None) -> int:
    """What processes that are not ours use, as far as it can be told; 0 for the little that the driver has itself."""
    if grant is None:
        used = gpu.used_bytes
    else:
        ours = [process.used_bytes for process in gpu.processes if process.pid in grant.pids]
        told = sum(count for count in ours if count is not None)
        known = bool(ours) and all(count is not None for count in ours)
        used = gpu.used_bytes - told if known else grant.before.get(gpu.uuid, 0)
    return used if used > _SLACK else 0


def in_the_way(gpu: HostGpu) -> str:
    name = f"GPU {gpu.index} ({gpu.model}"
    if gpu.fault:
        return f"{name}) is not used: {gpu.fault}"
    if gpu.replica_id is not None:
        return f"{name}) is {gpu.replica_id}'s{', which ends' if gpu.ending else ''}"
    beside = f", {gpu.others_bytes / GIB:.2f} GiB are used by others" if gpu.others_bytes else ""
    return f"{name}) has {gpu.free_bytes / GIB:.2f} of {gpu.total_bytes / GIB:.2f} GiB free{beside}"


def session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError, OverflowError):
        return None
