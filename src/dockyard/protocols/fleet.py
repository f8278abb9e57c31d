"""What a fleet does for the control plane: start, stop and observe replicas. The fleets themselves live in `fleets`."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from dockyard.domain.replica import ReplicaFailure
from dockyard.protocols.generation import Health, WorkerSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaAddress:
    """Where the gateway reaches a replica: a Unix socket, or a base URL."""

    token: str
    socket: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningReplica:
    """What was recorded of a replica, enough to find its process again after a restart of the server."""

    replica_id: str
    token: str
    pid: int
    process_started_at: float  # seconds since the epoch, as psutil tells it
    socket: str
    gpus: tuple[str, ...] = ()
    engine_group: str = ""
    version_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    """The latest that is known. `alive` False means the process is gone, and `failure` tells why unless it was stopped.

    `spawn_ms`: from the fork to the first answer. `gpus`: the UUIDs of those that it has, to itself or with
    the others of its engine.
    """

    replica_id: str
    alive: bool
    pid: int | None
    process_started_at: float | None
    address: ReplicaAddress
    health: Health | None = None
    failure: ReplicaFailure | None = None
    spawn_ms: float | None = None
    gpus: tuple[str, ...] = ()


class Fleet(Protocol):
    """Starts and stops replicas and keeps `statuses` current by itself.

    `changed` is set when a replica enters another phase or ends, not when its counts change.
    """

    changed: asyncio.Event

    async def open(self, known: Sequence[RunningReplica]) -> None:
        """Adopt the replicas of `known` that still run; end every other process of this data directory.

        Afterwards `statuses` has an entry for each of `known`: alive, or gone.
        """
        ...

    async def start(self, spec: WorkerSpec) -> ReplicaStatus:
        """Start a replica process. Returns once the process exists, not once it is ready. Idempotent by id.

        It gets as many GPUs as the spec says, for itself, or joins an engine that has as many; an ended one's are given
        out once their memory is free again.

        Raises `Failed` (NO_CAPACITY, INTERNAL) when the host cannot make a process, or has no such GPUs.
        """
        ...

    async def stop(self, replica_id: str, *, grace_s: float) -> None:
        """End a replica: it finishes what runs, within `grace_s` seconds, then is killed. Returns once it is gone.

        An unknown or ended replica is not an error.
        """
        ...

    def keep_warm(self, engines: Collection[str]) -> None:
        """Name the engines that replicas may be started of soon; those before are forgotten. Returns at once.

        A fleet that can keeps something at hand that makes a start of them short. Nothing else depends on it.
        """
        ...

    def statuses(self) -> Mapping[str, ReplicaStatus]: ...

    def logs(self, replica_id: str, lines: int = 200) -> Sequence[str]:
        """The last lines that the replica wrote, oldest first; empty for an unknown one."""
        ...

    def forget(self, replica_id: str) -> None:
        """Drop an ended replica's status and files."""
        ...

    async def close(self, *, stop_replicas: bool) -> None:
        """Leave the fleet. `stop_replicas` drains and ends them; otherwise they run on to be adopted."""
        ...
