"""A replica: one process that serves one version; and the pure rules about it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dockyard.domain.lifecycle import ReplicaState
from dockyard.errors import Reason

BACK_OFF_CEILING_S = 60.0
SERVED_BACK_OFF_CEILING_S = 2.0  # of a version that serves: requests wait for the next start


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaFailure:
    """Why a replica ended: a reason to act on, a sentence, and the last lines it wrote."""

    reason: Reason
    message: str
    at: datetime
    log_tail: tuple[str, ...] = ()
    retryable: bool = True  # False: the same start would fail in the same way


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """`pid` with `process_started_at` (seconds since the epoch, from /proc) names the process beyond doubt.

    `token` is the secret that the replica asks of whoever calls it. `timings` in ms: spawn, import, load, warm_up.
    `restarts` counts the replicas of this slot that failed before it. `gpus`: the UUIDs of those that it has, to itself
    or with the others of its engine; those share one that have an `engine_group` in common.
    """

    replica_id: str
    version_id: str
    deployment_id: str
    token: str
    created_at: datetime
    modified_at: datetime
    state: ReplicaState = ReplicaState.PENDING
    pid: int | None = None
    process_started_at: float | None = None
    socket: str | None = None
    host: str = "localhost"
    engine: str = ""
    compute_type: str = ""
    runs_on: str = ""
    restarts: int = 0
    timings: dict[str, Any] | None = None
    failure: ReplicaFailure | None = None
    started_at: datetime | None = None
    ready_at: datetime | None = None
    stopped_at: datetime | None = None
    gpus: tuple[str, ...] = ()
    engine_group: str = ""
    revision: int = 0


def engines_beside(living: Iterable[Replica], group: str, version_id: str) -> int:
    """How many engines of a group run at least that a replica of this version may join: replicas of one version have
    as many engines as there are of them.
    """
    seated = Counter(replica.version_id for replica in living if group and replica.engine_group == group)
    return max(seated.values(), default=0) - seated[version_id]


def back_off_s(failures_in_a_row: int, ceiling_s: float = BACK_OFF_CEILING_S) -> float:
    """Seconds to wait before the next start: 0, then 1, 2, 4 … 60."""
    if failures_in_a_row <= 0:
        return 0.0
    return min(ceiling_s, 2.0 ** min(failures_in_a_row - 1, 10))


def restart_back_off_s(failures_in_a_row: int, failed_starts_in_a_row: int) -> float:
    """Seconds to wait before a version's next start, the first of which is immediate: one crash is no loop yet.

    0, 1, 2 s after failures of whatever kind: replicas that were ready may be killed again and again, the next is there
    soon. Only starts that never got ready, the latest `failed_starts_in_a_row`, lengthen it beyond: 4, 8 … 60 s. What
    cannot start must not keep the machine busy; what served is awaited.
    """
    return max(back_off_s(failures_in_a_row - 1, SERVED_BACK_OFF_CEILING_S), back_off_s(failed_starts_in_a_row - 1))
