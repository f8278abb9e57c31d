"""Jobs ("dock status"): long work a client can watch. The row is the truth."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from dockyard.domain.lifecycle import JobStatus
from dockyard.errors import Reason


class Action(StrEnum):
    IMPORT = "IMPORT"
    EXPORT = "EXPORT"
    DEPLOY = "DEPLOY"
    UNDEPLOY = "UNDEPLOY"


class Phase(StrEnum):
    QUEUED = "QUEUED"
    VALIDATING = "VALIDATING"
    COPYING = "COPYING"
    CONVERTING = "CONVERTING"
    OPTIMIZING = "OPTIMIZING"
    PROVISIONING = "PROVISIONING"
    LOADING = "LOADING"
    WARMING_UP = "WARMING_UP"
    ROUTING = "ROUTING"
    DRAINING = "DRAINING"
    STOPPING = "STOPPING"
    DONE = "DONE"


# Phases in order, each with the share of the bar at which it starts. A phase may be skipped.
PHASES: dict[Action, tuple[tuple[Phase, int], ...]] = {
    Action.IMPORT: (
        (Phase.QUEUED, 0),
        (Phase.COPYING, 2),
        (Phase.CONVERTING, 2),  # a GGUF file, in place of copying
        (Phase.VALIDATING, 90),
        (Phase.DONE, 100),
    ),
    Action.DEPLOY: (
        (Phase.QUEUED, 0),
        (Phase.VALIDATING, 2),
        (Phase.OPTIMIZING, 5),
        (Phase.PROVISIONING, 60),
        (Phase.LOADING, 65),
        (Phase.WARMING_UP, 85),
        (Phase.ROUTING, 95),
        (Phase.DONE, 100),
    ),
    Action.UNDEPLOY: ((Phase.QUEUED, 0), (Phase.DRAINING, 5), (Phase.STOPPING, 80), (Phase.DONE, 100)),
    Action.EXPORT: ((Phase.QUEUED, 0), (Phase.COPYING, 5), (Phase.DONE, 100)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseLog:
    """One line of `statusLogs`."""

    phase: Phase
    status: JobStatus
    started_at: datetime
    message: str
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One import, export, deploy or undeploy. Whoever holds the lease works on it; nobody else writes it."""

    job_id: str
    model_id: str
    action: Action
    created_at: datetime
    modified_at: datetime
    status: JobStatus = JobStatus.IN_PROGRESS
    phase: Phase = Phase.QUEUED
    percentage: int = 0
    message: str = ""
    reason: Reason | None = None
    log_tail: tuple[str, ...] = ()
    logs: tuple[PhaseLog, ...] = ()
    deployment_id: str | None = None
    deployment_name: str | None = None
    version_id: str | None = None
    deployment_version: int | None = None
    warnings: tuple[str, ...] = ()
    response: dict[str, Any] | None = None
    cancel_requested: bool = False
    lease_owner: str | None = None
    lease_until: datetime | None = None
    revision: int = 0
    request: dict[str, Any] = field(default_factory=dict[str, Any])  # what the job needs to start anew

    @property
    def ended(self) -> bool:
        return self.status is not JobStatus.IN_PROGRESS


def percentage_at(action: Action, phase: Phase, share: float) -> int:
    """The bar's value when `share` (0 to 1) of `phase` is done; 100 only for DONE."""
    table = PHASES[action]
    starts = dict(table)
    low = starts[phase]
    if phase is Phase.DONE:
        return 100
    high = min(start for _, start in table if start > low)
    return min(99, low + int((high - low) * max(0.0, min(1.0, share))))


def advance(job: Job, phase: Phase, message: str, now: datetime, share: float = 0.0) -> Job:
    """`job` at `phase`. The bar never falls; entering a phase closes the one before it in the logs."""
    percentage = max(job.percentage, percentage_at(job.action, phase, share))
    if job.logs and job.logs[-1].phase is phase:
        logs = (*job.logs[:-1], replace(job.logs[-1], message=message))
    else:
        logs = (*_closed(job.logs, JobStatus.SUCCESS, now), _opened(phase, message, now))
    return replace(job, phase=phase, percentage=percentage, message=message, logs=logs, modified_at=now)


def succeed(job: Job, message: str, now: datetime, response: dict[str, Any] | None = None) -> Job:
    """`job`, done: 100 %, with the outcome that the client needs next."""
    done = advance(job, Phase.DONE, message, now, 1.0)
    logs = _closed(done.logs, JobStatus.SUCCESS, now)
    return replace(done, status=JobStatus.SUCCESS, logs=logs, response=response, lease_owner=None, lease_until=None)


def fail(job: Job, reason: Reason, message: str, now: datetime, log_tail: tuple[str, ...] = ()) -> Job:
    """`job`, failed in the phase it is in, with a reason and the last lines of what failed."""
    logs = job.logs or (_opened(job.phase, job.message, now),)
    logs = (*logs[:-1], replace(logs[-1], message=message))
    return replace(
        job,
        status=JobStatus.FAILED,
        reason=reason,
        message=message,
        log_tail=log_tail,
        logs=_closed(logs, JobStatus.FAILED, now),
        modified_at=now,
        lease_owner=None,
        lease_until=None,
    )


def _opened(phase: Phase, message: str, now: datetime) -> PhaseLog:
    return PhaseLog(phase=phase, status=JobStatus.IN_PROGRESS, started_at=now, message=message)


def _closed(logs: tuple[PhaseLog, ...], status: JobStatus, now: datetime) -> tuple[PhaseLog, ...]:
    if not logs or logs[-1].finished_at is not None:
        return logs
    return (*logs[:-1], replace(logs[-1], status=status, finished_at=now))
