"""Which replicas have which GPUs: given out before their process starts, free again once its memory really is.

An engine that several replicas share has GPUs once: whoever joins it takes none.
"""

import asyncio
import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from dockyard.clock import Clock
from dockyard.domain.devices import GIB, MIB
from dockyard.domain.gpus import HostGpu, choose_gpus, engines_to_join
from dockyard.errors import Failed, Reason
from dockyard.fleets.local.grants import Grant, Grants, Holder
from dockyard.fleets.local.occupancy import host_gpu, in_the_way, lingering, others, session_of
from dockyard.protocols.generation import Adapter
from dockyard.protocols.gpus import Gpu, GpuReader, GpuReading

_logger = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuPatience:
    """How often the GPUs are looked at, and how long the memory of an ended replica is waited for.

    The driver frees it within a second or two of the process's end; a process that hangs in the driver takes longer.
    """

    look_every_s: float = 5.0
    release_every_s: float = 0.2
    release_within_s: float = 30.0


class Engines(Protocol):
    """The processes of engines that replicas share. May block for milliseconds, on any thread."""

    def find(self, gpu_ids: Sequence[str]) -> int | None:
        """The pid of the one that has these GPUs; None: there is none, 0: it cannot be told which."""
        ...

    def kill(self, pid: int) -> None:
        """With all that it has started."""
        ...


class NoEngines:
    """Implements `Engines` where none is shared."""

    def find(self, gpu_ids: Sequence[str]) -> int | None:
        return None

    def kill(self, pid: int) -> None:
        pass


class Gpus:
    """`on_change` is called when GPUs become free or useless. `open` it first; without GPUs nothing more happens.

    All of it runs on the event loop, but the readings, which block and have a thread.
    """

    def __init__(
        self, reader: GpuReader, clock: Clock, patience: GpuPatience | None = None, engines: Engines | None = None
    ) -> None:
        self.on_change = lambda: None
        self._reader = reader
        self._engines = engines or NoEngines()
        self._clock = clock
        self._patience = patience or GpuPatience()
        self._reading = GpuReading()
        self._grants = Grants()
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
        grants = self._grants.by_gpu()
        return tuple(host_gpu(gpu, grants.get(gpu.uuid)) for gpu in self._reading.gpus)

    async def take(
        self, replica_id: str, count: int, bytes_each: int, adapter: Adapter | None = None
    ) -> tuple[str, ...]:
        """Give `count` GPUs to a replica, for itself; or, to one with an `adapter`, those of an engine that it joins.

        Raises `Failed` (NO_CAPACITY), naming what is in the way.
        """
        group, version_id = (adapter.group, adapter.version_id) if adapter is not None else ("", "")
        await self.look()  # somebody else may have come to use one meanwhile
        seen, holder = self.seen(), Holder(version_id)
        if engines := engines_to_join(seen, group, version_id):
            return self._grants.give(replica_id, holder, engines[0].uuids).uuids
        chosen = choose_gpus(seen, count, bytes_each)
        if chosen is None:
            raise Failed(self._refusal(count, bytes_each), reason=Reason.NO_CAPACITY)
        grant = self._grants.give(replica_id, holder, tuple(gpu.uuid for gpu in chosen), group)
        grant.before = {gpu.uuid: gpu.used_bytes for gpu in self._held(grant)}
        grant.share = min(gpu.free_bytes / gpu.total_bytes for gpu in chosen)
        return grant.uuids

    def free_share(self, uuids: Collection[str]) -> float:
        """How much of each of these GPUs is for who has them, at least: 0 to 1, as nobody else used it when they were
        given out. What an engine takes that others join later does not count against them.
        """
        grant = self._grants.find(uuids)
        if grant is not None and grant.share is not None:
            return grant.share
        shares = [1 - others(gpu, grant) / gpu.total_bytes for gpu in self._reading.gpus if gpu.uuid in uuids]
        return min(shares, default=1.0)

    def keep(self, replica_id: str, uuids: tuple[str, ...], leader: int, group: str = "", version_id: str = "") -> None:
        """A replica that an earlier server started has these, perhaps with others."""
        self._grants.give(replica_id, Holder(version_id, leader), uuids, group)

    def lead(self, replica_id: str, pid: int) -> None:
        """The process of a replica that GPUs were given to; those that it starts are of its session."""
        self._grants.lead(replica_id, pid)

    def drop(self, replica_id: str) -> None:
        """There never was a process."""
        self._grants.drop(replica_id, self._clock.monotonic())

    def note_ending(self, replica_id: str) -> None:
        """It was asked to end."""
        self._grants.note_ending(replica_id)

    def note_ended(self, living: Collection[str]) -> None:
        """The replicas whose processes live; the GPUs of all others are free as soon as their memory is."""
        if self._grants.note_ended(living, self._clock.monotonic()):
            self._poked.set()

    async def look(self) -> None:
        """Read, and see what follows from it."""
        async with self._looking:
            before, began = self._reading, self._clock.monotonic()
            shared = [grant.uuids for grant in self._grants.all() if grant.group]
            self._reading, engines = await asyncio.to_thread(self._read, shared)
            self._tell_changes(before)
            for grant in self._grants.all():
                if grant.uuids in engines:
                    self._note_engine(grant, engines[grant.uuids], began)
                self._note_processes(grant)
                if grant.ended_at is not None and not self._reading.trouble:  # who cannot see does not know
                    self._release(grant, grant.ended_at)

    def _read(self, shared: Sequence[tuple[str, ...]]) -> tuple[GpuReading, Mapping[tuple[str, ...], int | None]]:
        """The engines first: one that has gone by then has nothing more to take."""
        engines = {uuids: self._engines.find(uuids) for uuids in shared}
        return self._reader.read(), engines

    async def _watch(self) -> None:
        while True:
            self._poked.clear()
            awaited = any(grant.ended_at is not None for grant in self._grants.all())
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
        held = self._grants.by_gpu()
        able = (gpu for gpu in reading.gpus if gpu.fault is None and gpu.uuid not in held)
        return [(gpu.uuid, gpu.free_bytes // (256 * MIB)) for gpu in able]

    def _note_engine(self, grant: Grant, pid: int | None, asked_at: float) -> None:
        """Whether the engine lives: of one whose replicas ended since it was asked, that must be asked again."""
        if grant.ended_at is not None and grant.ended_at > asked_at:
            return
        if pid is not None:
            grant.engine = pid
        could_join = grant.shared
        grant.engine_lives = pid is not None
        if grant.shared != could_join:
            self.on_change()

    def _note_processes(self, grant: Grant) -> None:
        """A replica, as an engine, leads a session of its own, so whatever it starts is known by that; also long after
        it forked.
        """
        sessions = grant.sessions
        for gpu in self._held(grant):
            grant.pids.update(p.pid for p in gpu.processes if session_of(p.pid) in sessions)

    def _release(self, grant: Grant, ended_at: float) -> None:
        left = [told for gpu in self._held(grant) if (told := lingering(gpu, grant)) is not None]
        waited_s = self._clock.monotonic() - ended_at
        if (left or grant.engine_lives) and waited_s < self._patience.release_within_s:
            return
        if grant.engine_lives and grant.engine is not None and not grant.engine_killed:
            _logger.warning("a shared engine did not end after its last replica and is killed", pid=grant.engine)
            self._engines.kill(grant.engine)
            grant.engine_killed, grant.ended_at = True, self._clock.monotonic()
            return
        if left:  # from now on it counts as what others use
            _logger.warning(
                "the memory of an ended replica did not become free; its GPU is given out with what is left of it",
                replica=grant.name,
                gpus=left,
                waited_s=round(waited_s, 1),
            )
        self._grants.release(grant)
        self.on_change()

    def _held(self, grant: Grant) -> list[Gpu]:
        return [gpu for gpu in self._reading.gpus if gpu.uuid in grant.uuids]

    def _refusal(self, count: int, bytes_each: int) -> str:
        if self._reading.trouble:
            return f"the GPUs cannot be used: {self._reading.trouble}"
        need = f"{bytes_each / GIB:.2f} GiB"
        told = "; ".join(in_the_way(gpu) for gpu in self.seen()) or "the host has no GPU"
        return f"the host has not {count} GPU(s) of one kind free with {need} each: {told}"
