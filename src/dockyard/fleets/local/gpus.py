"""Which replica has which GPUs: given out before its process starts, free again once its memory really is."""

import asyncio
import contextlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import structlog

from dockyard.clock import Clock
from dockyard.domain.devices import GIB, MIB
from dockyard.domain.gpus import HostGpu, choose_gpus
from dockyard.errors import Failed, Reason
from dockyard.protocols.gpus import Gpu, GpuReader, GpuReading

# What the driver itself takes more or less of from one moment to the next. A CUDA context is larger.
_SLACK = 128 * MIB

_logger = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuPatience:
    """How often the GPUs are looked at, and how long the memory of an ended replica is waited for.

    The driver frees it within a second or two of the process's end; a process that hangs in the driver takes longer.
    """

    look_every_s: float = 5.0
    release_every_s: float = 0.2
    release_within_s: float = 30.0


@dataclass(slots=True)
class _Holding:
    """`before`: what each GPU had in use when it was given out; not known of an adopted replica's."""

    uuids: tuple[str, ...]
    before: Mapping[str, int] = field(default_factory=dict[str, int])
    leader: int | None = None
    pids: set[int] = field(default_factory=set[int])  # seen on the GPUs
    ending: bool = False
    ended_at: float | None = None  # its process is gone


class Gpus:
    """`on_change` is called when GPUs become free or useless. `open` it first; without GPUs nothing more happens.

    All of it runs on the event loop, but the readings, which block and have a thread.
    """

    def __init__(self, reader: GpuReader, clock: Clock, patience: GpuPatience | None = None) -> None:
        self.on_change = lambda: None
        self._reader = reader
        self._clock = clock
        self._patience = patience or GpuPatience()
        self._reading = GpuReading()
        self._holdings: dict[str, _Holding] = {}
        self._looking = asyncio.Lock()
        self._poked = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    async def open(self) -> None:
        await self.look()
        if self._reading.gpus or self._reading.trouble:
            self._watching = asyncio.create_task(self._watch(), name="watch GPUs")

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching

    @property
    def driver(self) -> str | None:
        return self._reading.driver

    @property
    def trouble(self) -> str | None:
        """Why the GPUs of the machine cannot be asked."""
        return self._reading.trouble

    def seen(self) -> tuple[HostGpu, ...]:
        """All GPUs as of the last look, with who has them."""
        holders = {uuid: name for name, holding in self._holdings.items() for uuid in holding.uuids}
        return tuple(self._host_gpu(gpu, holders.get(gpu.uuid)) for gpu in self._reading.gpus)

    async def take(self, replica_id: str, count: int, bytes_each: int) -> tuple[str, ...]:
        """Give `count` GPUs to a replica, for itself. Raises `Failed` (NO_CAPACITY), naming what is in the way."""
        await self.look()  # somebody else may have come to use one meanwhile
        chosen = choose_gpus(self.seen(), count, bytes_each)
        if chosen is None:
            raise Failed(self._refusal(count, bytes_each), reason=Reason.NO_CAPACITY)
        uuids = tuple(gpu.uuid for gpu in chosen)
        before = {gpu.uuid: gpu.used_bytes for gpu in self._reading.gpus if gpu.uuid in uuids}
        self._holdings[replica_id] = _Holding(uuids, before)
        return uuids

    def free_share(self, uuids: Collection[str]) -> float:
        """How much of each of these GPUs nobody uses, at least: 0 to 1, as of the last look."""
        shares = [gpu.free_bytes / gpu.total_bytes for gpu in self._reading.gpus if gpu.uuid in uuids]
        return min(shares, default=1.0)

    def keep(self, replica_id: str, uuids: tuple[str, ...], leader: int) -> None:
        """A replica that an earlier server started has these."""
        self._holdings[replica_id] = _Holding(uuids, leader=leader)

    def lead(self, replica_id: str, pid: int) -> None:
        """The process of a replica that GPUs were given to; those that it starts are of its session."""
        if replica_id in self._holdings:
            self._holdings[replica_id].leader = pid

    def drop(self, replica_id: str) -> None:
        """There never was a process."""
        self._holdings.pop(replica_id, None)

    def note_ending(self, replica_id: str) -> None:
        """It was asked to end."""
        if replica_id in self._holdings:
            self._holdings[replica_id].ending = True

    def note_ended(self, living: Collection[str]) -> None:
        """The replicas whose processes live; the GPUs of all others are free as soon as their memory is."""
        for replica_id, holding in self._holdings.items():
            if replica_id not in living and holding.ended_at is None:
                holding.ending, holding.ended_at = True, self._clock.monotonic()
                self._poked.set()

    async def look(self) -> None:
        """Read, and see what follows from it."""
        async with self._looking:
            before = self._reading
            self._reading = await asyncio.to_thread(self._reader.read)
            self._tell_changes(before)
            for replica_id, holding in list(self._holdings.items()):
                self._note_processes(holding)
                if holding.ended_at is not None and not self._reading.trouble:  # who cannot see does not know
                    self._release(replica_id, holding, holding.ended_at)

    async def _watch(self) -> None:
        while True:
            self._poked.clear()
            awaited = any(holding.ended_at is not None for holding in self._holdings.values())
            wait_s = self._patience.release_every_s if awaited else self._patience.look_every_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._poked.wait()
            await self.look()

    def _tell_changes(self, before: GpuReading) -> None:
        now = self._reading
        if now.trouble != before.trouble:
            if now.trouble:
                _logger.warning("the GPUs cannot be used", why=now.trouble)
            else:
                _logger.info("the GPUs can be used again", driver=now.driver)
        known = {gpu.uuid: gpu.fault for gpu in before.gpus}
        for gpu in now.gpus:
            if gpu.fault and known.get(gpu.uuid) != gpu.fault:
                _logger.warning("a GPU is not used", gpu=gpu.index, model=gpu.model, why=gpu.fault)
        if self._free(now) != self._free(before):
            self.on_change()

    def _free(self, reading: GpuReading) -> list[tuple[str, int]]:
        """What matters for who may run: which GPUs nobody of ours has, and what is free there in steps of 256 MiB."""
        held = {uuid for holding in self._holdings.values() for uuid in holding.uuids}
        able = (gpu for gpu in reading.gpus if gpu.fault is None and gpu.uuid not in held)
        return [(gpu.uuid, gpu.free_bytes // (256 * MIB)) for gpu in able]

    def _note_processes(self, holding: _Holding) -> None:
        """A replica leads a session of its own, so whatever it starts is known by that; also long after it forked."""
        if holding.leader is None:
            return
        for gpu in self._reading.gpus:
            if gpu.uuid in holding.uuids:
                holding.pids.update(p.pid for p in gpu.processes if _session_of(p.pid) == holding.leader)

    def _release(self, replica_id: str, holding: _Holding, ended_at: float) -> None:
        lingering = [told for gpu in self._held(holding) if (told := _lingering(gpu, holding)) is not None]
        waited_s = self._clock.monotonic() - ended_at
        if lingering and waited_s < self._patience.release_within_s:
            return
        if lingering:  # from now on it counts as what others use
            _logger.warning(
                "the memory of an ended replica did not become free; its GPU is given out with what is left of it",
                replica=replica_id,
                gpus=lingering,
                waited_s=round(waited_s, 1),
            )
        del self._holdings[replica_id]
        self.on_change()

    def _held(self, holding: _Holding) -> list[Gpu]:
        return [gpu for gpu in self._reading.gpus if gpu.uuid in holding.uuids]

    def _host_gpu(self, gpu: Gpu, replica_id: str | None) -> HostGpu:
        holding = self._holdings[replica_id] if replica_id is not None else None
        awaits = None
        if holding is not None and holding.ended_at is not None:
            awaits = _lingering(gpu, holding)
        return HostGpu(
            uuid=gpu.uuid,
            index=gpu.index,
            model=gpu.model,
            total_bytes=gpu.total_bytes,
            free_bytes=gpu.free_bytes,
            others_bytes=_others(gpu, holding),
            capability=gpu.capability,
            replica_id=replica_id,
            ending=holding is not None and holding.ending,
            awaits=awaits,
            fault=gpu.fault,
        )

    def _refusal(self, count: int, bytes_each: int) -> str:
        if self._reading.trouble:
            return f"the GPUs cannot be used: {self._reading.trouble}"
        need = f"{bytes_each / GIB:.2f} GiB"
        told = "; ".join(_in_the_way(gpu) for gpu in self.seen()) or "the host has no GPU"
        return f"the host has not {count} GPU(s) of one kind free with {need} each: {told}"


def _lingering(gpu: Gpu, holding: _Holding) -> str | None:
    """What of an ended replica is still on a GPU, as a sentence; None if it is as it was without it.

    Listed processes that live explain their memory. In a container they may not be listed at all, or by numbers that
    mean nothing here: then what was in use before the replica came is what should be in use after it has gone.
    """
    still = sorted(process.pid for process in gpu.processes if process.pid in holding.pids)
    if still:
        return f"GPU {gpu.index} ({gpu.model}): process(es) {', '.join(map(str, still))} of it are still on it"
    others = [process.used_bytes for process in gpu.processes if _session_of(process.pid) is not None]
    if None in others:
        return None  # others are there and nobody tells what they use
    explained = max(holding.before.get(gpu.uuid, 0), sum(used or 0 for used in others))
    surplus = gpu.used_bytes - explained
    if surplus <= _SLACK:
        return None
    return f"GPU {gpu.index} ({gpu.model}): {surplus / GIB:.2f} GiB of its memory are not free yet"


def _others(gpu: Gpu, holding: _Holding | None) -> int:
    """What processes that are not ours use, as far as it can be told; 0 for the little that the driver has itself."""
    if holding is None:
        others = gpu.used_bytes
    else:
        ours = [process.used_bytes for process in gpu.processes if process.pid in holding.pids]
        told = sum(used for used in ours if used is not None)
        known = bool(ours) and all(used is not None for used in ours)
        others = gpu.used_bytes - told if known else holding.before.get(gpu.uuid, 0)
    return others if others > _SLACK else 0


def _in_the_way(gpu: HostGpu) -> str:
    name = f"GPU {gpu.index} ({gpu.model}"
    if gpu.fault:
        return f"{name}) is not used: {gpu.fault}"
    if gpu.replica_id is not None:
        return f"{name}) is {gpu.replica_id}'s{', which ends' if gpu.ending else ''}"
    others = f", {gpu.others_bytes / GIB:.2f} GiB are used by others" if gpu.others_bytes else ""
    return f"{name}) has {gpu.free_bytes / GIB:.2f} of {gpu.total_bytes / GIB:.2f} GiB free{others}"


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError, OverflowError):
        return None
