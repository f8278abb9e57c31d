"""The fleet of one machine: each replica is a process of its own behind a Unix socket."""

import asyncio
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from dockyard.clock import Clock
from dockyard.domain.devices import Host
from dockyard.domain.replica import ReplicaFailure
from dockyard.errors import Reason, Unavailable
from dockyard.fleets.local import log
from dockyard.fleets.local.adoption import Worker, end_all, find_workers
from dockyard.fleets.local.channel import Channel
from dockyard.fleets.local.folder import RunFolder
from dockyard.fleets.local.gpus import GpuPatience, Gpus
from dockyard.fleets.local.host import host_now
from dockyard.fleets.local.process import Process
from dockyard.fleets.local.replica import LOG_TAIL_LINES, LocalReplica, Patience
from dockyard.fleets.local.shared_engines import SharedEngines
from dockyard.fleets.local.spares import Spares
from dockyard.fleets.local.spawn import bound, spawn
from dockyard.fleets.local.start_watch import SERVING
from dockyard.protocols.fleet import ReplicaAddress, ReplicaStatus, RunningReplica
from dockyard.protocols.generation import Health, WorkerSpec
from dockyard.protocols.gpus import GpuReader, NoGpus

Elsewhere = Callable[[str], tuple[Path, Mapping[str, str]] | None]

WORKER_COMMAND = (sys.executable, "-m", "dockyard.worker")


class LocalFleet:
    """Implements `protocols.fleet.Fleet`. Call `open` before anything else.

    `command` runs a worker; the fleet adds `--socket-fd`, `--replica-id` and `--run-dir`, and `--spare` for a spare.
    `warm_spares` False makes `keep_warm` do nothing. `host` tells how much memory is free for spares. `elsewhere` tells
    the interpreter of an engine that has one of its own, and what its processes need in their environment. `gpus` reads
    the machine's GPUs.
    """

    def __init__(
        self,
        run_dir: Path,
        clock: Clock,
        *,
        command: Sequence[str] = WORKER_COMMAND,
        patience: Patience | None = None,
        warm_spares: bool = True,
        host: Callable[[], Host] = host_now,
        elsewhere: Elsewhere = lambda engine: None,
        gpus: GpuReader | None = None,
        gpu_patience: GpuPatience | None = None,
    ) -> None:
        self.changed = asyncio.Event()
        self._folder = RunFolder(run_dir)
        self._clock = clock
        self._command = tuple(command)
        self._patience = patience or Patience()
        self._warm_spares = warm_spares
        self._elsewhere = elsewhere
        self._host = host
        self.gpus = Gpus(gpus or NoGpus(), clock, gpu_patience, SharedEngines(self._folder.temporary))
        self.gpus.on_change = self.changed.set
        self._spares = Spares(
            command,
            self._folder.path,
            host=host,
            busy=self._is_starting,
            on_change=self.changed.set,
            answer_timeout_s=self._patience.spare_answer_timeout_s,
        )
        self._starting: dict[str, tuple[ReplicaStatus, asyncio.Task[ReplicaStatus]]] = {}  # no process yet
        self._replicas: dict[str, LocalReplica] = {}
        # The last words of those that are over, and of known ones that did not outlive the last server: what they held
        # has gone. A deployment that breathes ends some every few seconds, and they are shown until they are forgotten.
        self._ended: dict[str, ReplicaStatus] = {}

    async def open(self, known: Sequence[RunningReplica]) -> None:
        self._folder.ensure()
        _, workers = await asyncio.gather(self.gpus.open(), asyncio.to_thread(find_workers, self._folder.path))
        for replica in known:
            if replica.gpus:
                self.gpus.keep(replica.replica_id, replica.gpus, replica.pid, replica.engine_group, replica.version_id)
        adopted = await asyncio.gather(*(self._adopt(replica, workers.get(replica.pid)) for replica in known))
        ours = {replica.pid for replica, taken in zip(known, adopted, strict=True) if taken}
        await end_all(worker for pid, worker in workers.items() if pid not in ours)
        self._folder.remove_sockets_except(self._sockets())
        self._note_ended()
        self.changed.set()

    async def start(self, spec: WorkerSpec) -> ReplicaStatus:
        replica_id = spec.replica_id
        if replica_id in self._starting:
            return await asyncio.shield(self._starting[replica_id][1])
        known = self.statuses().get(replica_id)
        if known is not None:
            return known
        socket = self._folder.socket_path(replica_id, self._sockets())
        address = ReplicaAddress(token=spec.token, socket=socket)
        # A task of its own, for a caller that is cancelled must not leave a process behind that nobody knows.
        task = asyncio.create_task(self._start(spec, address), name=f"start {replica_id}")
        waiting = ReplicaStatus(replica_id=replica_id, alive=True, pid=None, process_started_at=None, address=address)
        self._starting[replica_id] = waiting, task
        task.add_done_callback(lambda _: self._starting.pop(replica_id))
        return await asyncio.shield(task)

    async def stop(self, replica_id: str, *, grace_s: float) -> None:
        if replica_id in self._starting:
            await asyncio.wait({self._starting[replica_id][1]})
        replica = self._replicas.get(replica_id)
        if replica is not None:
            self.gpus.note_ending(replica_id)
            await replica.stop(grace_s)

    def host(self) -> Host:
        """The machine as it is now, with its GPUs as of the last look and who has them."""
        gpus = self.gpus
        return replace(self._host(), gpus=gpus.seen(), gpu_driver=gpus.driver, gpu_trouble=gpus.trouble)

    def keep_warm(self, engines: Collection[str]) -> None:
        if self._warm_spares:
            self._spares.keep([engine for engine in engines if self._elsewhere(engine) is None])

    def warm(self) -> Mapping[str, int]:
        """Pids of the spares that can become replicas at once, by engine."""
        return self._spares.pids()

    def read_ahead(self) -> Mapping[str, Collection[str]]:
        """Folders of the models of which the spare has read what the next replica needs, by engine."""
        return self._spares.read()

    def statuses(self) -> Mapping[str, ReplicaStatus]:
        starting = {replica_id: status for replica_id, (status, _) in self._starting.items()}
        return self._ended | starting | {replica_id: replica.status for replica_id, replica in self._replicas.items()}

    def logs(self, replica_id: str, lines: int = 200) -> Sequence[str]:
        return log.tail(self._folder.log_path(replica_id), lines)

    def forget(self, replica_id: str) -> None:
        """A replica that still runs is kept."""
        replica = self._replicas.get(replica_id)
        if replica is not None and replica.status.alive:
            return
        self._replicas.pop(replica_id, None)
        self._ended.pop(replica_id, None)
        self._folder.log_path(replica_id).unlink(missing_ok=True)

    async def close(self, *, stop_replicas: bool) -> None:
        if self._starting:
            await asyncio.wait({task for _, task in self._starting.values()})
        replicas = list(self._replicas.values())
        if stop_replicas:
            await asyncio.gather(*(replica.stop(self._patience.close_grace_s) for replica in replicas))
        await asyncio.gather(*(replica.leave() for replica in replicas))
        await self._spares.close()
        await self.gpus.close()
        self._folder.leave()

    async def _start(self, spec: WorkerSpec, address: ReplicaAddress) -> ReplicaStatus:
        """From a spare, if there is one; else a process from scratch."""
        spawned_at = self._clock.monotonic()
        gpus: tuple[str, ...] = ()
        if spec.device == "cuda" and spec.gpus:
            gpus = await self.gpus.take(spec.replica_id, spec.gpus, spec.gpu_bytes, spec.adapter)
        try:
            adapter = spec.adapter and msgspec.structs.replace(spec.adapter, sockets=self._folder.make_shared())
            share = self.gpus.free_share(gpus)
            told = msgspec.structs.replace(spec, gpu_ids=list(gpus), gpu_share=share, adapter=adapter)
            process = await self._make(told, address)
        except BaseException:
            self.gpus.drop(spec.replica_id)
            raise
        self.gpus.lead(spec.replica_id, process.pid)
        channel = Channel(address.socket or "", spec.token)
        return self._take_on(process, spec.replica_id, address, channel, spawned_at=spawned_at, gpus=gpus).status

    async def _make(self, spec: WorkerSpec, address: ReplicaAddress) -> Process:
        assert address.socket is not None
        with bound(address.socket) as listener:
            process = await self._spares.fork(spec, listener)
            if process is None:
                command, extra = self._command_of(spec.engine, address.socket)
                process = spawn(command, spec, run_dir=self._folder.path, listener=listener, extra=extra)
        return process

    def _command_of(self, engine: str, socket: str) -> tuple[Sequence[str], Mapping[str, str]]:
        own = self._elsewhere(engine)
        if own is None:
            return self._command, {}
        temporary = str(self._folder.make_temporary(socket))  # what such an engine leaves in it goes with the replica
        return (str(own[0]), "-m", "dockyard.worker"), {**own[1], "TMPDIR": temporary}

    async def _adopt(self, known: RunningReplica, worker: Worker | None) -> bool:
        """Take on a replica that an earlier server started, if it is the very process and answers as itself."""
        process = _process_of(known, worker)
        if process is None:
            self._lose(known, "its process is gone")
            return False
        channel = Channel(known.socket, known.token)
        try:
            health = await channel.health(self._patience.adopt_head_start_s)
        except Unavailable as silence:
            # One that hangs, or computes without a pause, must not keep the others from being served.
            health, answers = None, silence.reason is Reason.TIMED_OUT
        else:
            answers = health.replica_id == known.replica_id
        if not answers:
            process.close()
            await channel.close()
            self._lose(known, "it no longer answered as itself and was ended")
            return False
        address = ReplicaAddress(token=known.token, socket=known.socket)
        self._take_on(process, known.replica_id, address, channel, health=health, gpus=known.gpus)
        return True

    def _take_on(
        self,
        process: Process,
        replica_id: str,
        address: ReplicaAddress,
        channel: Channel,
        *,
        health: Health | None = None,
        spawned_at: float | None = None,
        gpus: tuple[str, ...] = (),
    ) -> LocalReplica:
        replica = LocalReplica(
            process,
            replica_id=replica_id,
            address=address,
            channel=channel,
            log_path=self._folder.log_path(replica_id),
            clock=self._clock,
            patience=self._patience,
            on_change=self._on_change,
            on_over=self._let_go,
            health=health,
            spawned_at=spawned_at,
            gpus=gpus,
        )
        self._replicas[replica_id] = replica
        replica.begin()
        self.changed.set()
        return replica

    def _on_change(self) -> None:
        self._note_ended()
        self.changed.set()
        self._spares.tend()

    def _note_ended(self) -> None:
        self.gpus.note_ended({replica_id for replica_id, status in self.statuses().items() if status.alive})

    def _let_go(self, replica: LocalReplica) -> None:
        """Keep what is told of a replica that is over, unless it was forgotten meanwhile."""
        replica_id = replica.status.replica_id
        if self._replicas.get(replica_id) is replica:
            del self._replicas[replica_id]
            self._ended[replica_id] = replica.status

    def _is_starting(self) -> bool:
        """Whether a replica is on its way."""
        return bool(self._starting) or any(
            replica.status.alive and (replica.status.health is None or replica.status.health.phase not in SERVING)
            for replica in self._replicas.values()
        )

    def _lose(self, known: RunningReplica, how: str) -> None:
        self._ended[known.replica_id] = ReplicaStatus(
            replica_id=known.replica_id,
            alive=False,
            pid=known.pid,
            process_started_at=known.process_started_at,
            address=ReplicaAddress(token=known.token, socket=known.socket),
            failure=ReplicaFailure(
                reason=Reason.ENGINE_CRASHED,
                message=f"the replica did not survive the time in which no server ran: {how}",
                at=self._clock.now(),
                log_tail=self._tail(known.replica_id),
            ),
        )

    def _tail(self, replica_id: str) -> tuple[str, ...]:
        return log.tail(self._folder.log_path(replica_id), LOG_TAIL_LINES)

    def _sockets(self) -> set[str]:
        """Paths that living replicas listen on, or will in a moment."""
        statuses = self.statuses().values()
        return {status.address.socket for status in statuses if status.alive and status.address.socket}


def _process_of(known: RunningReplica, worker: Worker | None) -> Process | None:
    if worker is None or not worker.is_same(known):
        return None
    try:
        return Process(worker.found)
    except ProcessLookupError:
        return None
