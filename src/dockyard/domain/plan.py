"""What the planner is told, and what it says: plain values. How it decides is in `rollout` and `replica_plan`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from dockyard.domain.deployment import Version
from dockyard.domain.fit import Room
from dockyard.domain.lifecycle import VersionState
from dockyard.domain.replica import Replica, ReplicaFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the planner is told beside the rows. `cached`, `unmade`, `cancelled`: version ids; `running`: replica ids.

    `desired`: the replicas that the demand needs; None while nothing is known of it. `rooms`: of the versions on GPUs
    and of those that may join engines of others, by version id; `room` and `settling` are the rest's.
    """

    cached: Mapping[str, str] = field(default_factory=dict[str, str])  # → key of the finished artifact
    unmade: Mapping[str, ReplicaFailure] = field(default_factory=dict[str, ReplicaFailure])  # making it failed
    cancelled: frozenset[str] = frozenset()
    desired: int | None = None
    running: Mapping[str, int] = field(default_factory=dict[str, int])  # → requests that run on it now
    room: int = 1_000  # how many more replicas the host has memory for
    settling: bool = False  # replicas are still loading: what they take, and so the room, is not known yet
    rooms: Mapping[str, Room] = field(default_factory=dict[str, Room])


@dataclass(frozen=True, slots=True)
class Move:
    """One version goes to another state, and why."""

    version: Version
    to: VersionState
    reason: str
    message: str
    failure: ReplicaFailure | None = None
    artifact_key: str | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """Start `count` replicas of a version; `restarts` of it failed in a row before."""

    version: Version
    count: int
    restarts: int


@dataclass(frozen=True, slots=True)
class Drain:
    """A replica leaves the route and finishes what runs, and why."""

    replica: Replica
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now. `route`: the version that should be served (None: nothing); `wake_at`: when to look again.

    `awaited`: nothing is served yet, and this version will be; requests may wait for it. `drain` are replicas to take
    out of the route, `stop` those that may end now. `lacking`: replicas that are wanted and the host has no room for;
    `waiting`: those for which there may be room in a moment.
    """

    moves: tuple[Move, ...] = ()
    starts: tuple[Start, ...] = ()
    prepare: tuple[Version, ...] = ()
    drain: tuple[Drain, ...] = ()
    stop: tuple[Replica, ...] = ()
    route: Version | None = None
    awaited: Version | None = None
    lacking: int = 0
    waiting: int = 0
    wake_at: datetime | None = None
