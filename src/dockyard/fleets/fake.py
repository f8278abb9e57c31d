"""A fleet without processes, for tests of the control plane: replicas become ready, crash and stop when told to.

It passes the same contract suite as the real ones.
"""

import asyncio
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from dockyard.clock import Clock
from dockyard.domain.replica import ReplicaFailure
from dockyard.errors import DockyardError, Reason
from dockyard.fleets.local.gpus import GpuPatience, Gpus
from dockyard.protocols.fleet import ReplicaAddress, ReplicaStatus, RunningReplica
from dockyard.protocols.generation import Health, ReplicaPhase, WorkerSpec
from dockyard.protocols.gpus import GpuReader, NoGpus


@dataclass(slots=True)
class FakeMachine:
    """What outlives a server: the processes that run, by replica id, and what each wrote. Hand it to the next fleet."""

    running: dict[str, ReplicaStatus] = field(default_factory=dict[str, ReplicaStatus])
    written: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    pids: Iterator[int] = field(default_factory=lambda: itertools.count(1001))

    def kill(self, replica_id: str) -> None:
        """End a process while no fleet looks on."""
        del self.running[replica_id]


class FakeFleet:
    """Implements `protocols.fleet.Fleet`. `started` and `stopped` record the calls in order, `warm` the latest engines.

    `auto_ready`: every replica is ready as soon as it starts. `may_stop`: clear it to hold every `stop` back.
    `refusal`: set it to have `start` raise it. `gpu_reader`: the machine's GPUs, given out as the local fleet does it.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        machine: FakeMachine | None = None,
        auto_ready: bool = False,
        gpu_reader: GpuReader | None = None,
        gpu_patience: GpuPatience | None = None,
    ) -> None:
        self.changed = asyncio.Event()
        self.gpus = Gpus(gpu_reader or NoGpus(), clock, gpu_patience)
        self.gpus.on_change = self.changed.set
        self.machine = machine or FakeMachine()
        self.auto_ready = auto_ready
        self.may_stop = asyncio.Event()
        self.may_stop.set()
        self.refusal: DockyardError | None = None
        self.started: list[WorkerSpec] = []
        self.stopped: list[str] = []
        self.warm: frozenset[str] = frozenset()
        self._clock = clock
        self._statuses: dict[str, ReplicaStatus] = {}

    async def open(self, known: Sequence[RunningReplica]) -> None:
        await self.gpus.open()
        for replica in known:
            if replica.gpus:
                self.gpus.keep(replica.replica_id, replica.gpus, replica.pid, replica.engine_group, replica.version_id)
            self._statuses[replica.replica_id] = self._adopt(replica)
        for orphan in self.machine.running.keys() - self._statuses.keys():
            del self.machine.running[orphan]
        self._note_ended()
        self.changed.set()

    async def start(self, spec: WorkerSpec) -> ReplicaStatus:
        if spec.replica_id in self._statuses:
            return self._statuses[spec.replica_id]
        if self.refusal is not None:
            raise self.refusal
        gpus: tuple[str, ...] = ()
        if spec.device == "cuda" and spec.gpus:
            gpus = await self.gpus.take(spec.replica_id, spec.gpus, spec.gpu_bytes, spec.adapter)
        self.started.append(msgspec.structs.replace(spec, gpu_ids=list(gpus)))
        self.machine.written[spec.replica_id] = [f"started {spec.engine}"]
        self._put(
            ReplicaStatus(
                replica_id=spec.replica_id,
                alive=True,
                pid=next(self.machine.pids),
                process_started_at=self._clock.now().timestamp(),
                address=ReplicaAddress(token=spec.token, socket=f"/fake/{spec.replica_id}.sock"),
                gpus=gpus,
            )
        )
        if self.auto_ready:
            self.make_ready(spec.replica_id, capacity=spec.max_batch_size, engine=spec.engine)
        return self._statuses[spec.replica_id]

    async def stop(self, replica_id: str, *, grace_s: float) -> None:
        status = self._statuses.get(replica_id)
        if status is None or not status.alive:
            return
        self.stopped.append(replica_id)
        self.gpus.note_ending(replica_id)
        await self.may_stop.wait()
        status = self._statuses[replica_id]
        if status.alive:  # it may have crashed meanwhile, or another stop was faster
            self._put(replace(status, alive=False))

    def keep_warm(self, engines: Collection[str]) -> None:
        self.warm = frozenset(engines)

    def statuses(self) -> Mapping[str, ReplicaStatus]:
        return dict(self._statuses)

    def logs(self, replica_id: str, lines: int = 200) -> Sequence[str]:
        return self.machine.written.get(replica_id, [])[-lines:]

    def forget(self, replica_id: str) -> None:
        status = self._statuses.get(replica_id)
        if status is not None and status.alive:
            return
        self._statuses.pop(replica_id, None)
        self.machine.written.pop(replica_id, None)

    async def close(self, *, stop_replicas: bool) -> None:
        if stop_replicas:
            for replica_id in list(self.machine.running):
                await self.stop(replica_id, grace_s=0)
        await self.gpus.close()

    # The script: what happens to replicas.

    def make_ready(self, replica_id: str, **health: Any) -> None:
        """Let a replica say that it is ready; `health` are further fields of `Health`."""
        self.report(replica_id, "ready", **health)

    def report(self, replica_id: str, phase: ReplicaPhase, **health: Any) -> None:
        """Let a replica say something about itself; what it said before and is not in `health` stays."""
        status = self._statuses[replica_id]
        before = status.health or Health(replica_id=replica_id, phase=phase)
        said = msgspec.structs.replace(before, phase=phase, **health)
        self._put(replace(status, health=said, spawn_ms=status.spawn_ms or 1.0))

    def crash(
        self,
        replica_id: str,
        *,
        reason: Reason = Reason.ENGINE_CRASHED,
        message: str = "the replica's process was killed by signal 9 (SIGKILL)",
        retryable: bool = True,
    ) -> None:
        """End a replica unasked, with what is to be read of it."""
        failure = ReplicaFailure(
            reason=reason,
            message=message,
            at=self._clock.now(),
            log_tail=tuple(self.logs(replica_id, 20)),
            retryable=retryable,
        )
        self._put(replace(self._statuses[replica_id], alive=False, failure=failure))

    def write(self, replica_id: str, line: str) -> None:
        """Add a line to a replica's log."""
        self.machine.written[replica_id].append(line)

    def _adopt(self, replica: RunningReplica) -> ReplicaStatus:
        running = self.machine.running.get(replica.replica_id)
        if running is not None and (running.pid, running.address.token) == (replica.pid, replica.token):
            return running
        self.machine.running.pop(replica.replica_id, None)
        failure = ReplicaFailure(
            reason=Reason.ENGINE_CRASHED,
            message="the replica did not survive the restart of the server",
            at=self._clock.now(),
        )
        return ReplicaStatus(
            replica_id=replica.replica_id,
            alive=False,
            pid=replica.pid,
            process_started_at=replica.process_started_at,
            address=ReplicaAddress(token=replica.token, socket=replica.socket),
            failure=failure,
        )

    def _put(self, status: ReplicaStatus) -> None:
        self._statuses[status.replica_id] = status
        if status.alive:
            self.machine.running[status.replica_id] = status
        else:
            self.machine.running.pop(status.replica_id, None)
        self._note_ended()
        self.changed.set()

    def _note_ended(self) -> None:
        self.gpus.note_ended(self.machine.running.keys())
