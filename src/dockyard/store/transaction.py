"""A transaction: the repositories on one connection, and the transitions that write their event beside the state."""

from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from dockyard.domain.deployment import Version
from dockyard.domain.event import Event
from dockyard.domain.ids import new_id
from dockyard.domain.job import Job
from dockyard.domain.lifecycle import (
    JOB,
    MODEL,
    REPLICA,
    VERSION,
    JobStatus,
    Machine,
    ModelState,
    ReplicaState,
    VersionState,
)
from dockyard.domain.model import Model
from dockyard.domain.replica import Replica
from dockyard.store.access import Apps, Keys
from dockyard.store.deployments import Deployments, Versions
from dockyard.store.events import Events
from dockyard.store.executor import Executor
from dockyard.store.jobs import Jobs
from dockyard.store.models import Artifacts, Models
from dockyard.store.replicas import Replicas
from dockyard.store.repository import RevisedRepository
from dockyard.store.uploads import Uploads

T = TypeVar("T", Model, Version, Replica, Job)
State = ModelState | VersionState | ReplicaState | JobStatus


class _Subject(NamedTuple):
    """An entity that has a state machine."""

    id: str
    model_id: str | None
    deployment_id: str | None
    field: str  # the one that holds the state
    machine: Machine[Any]
    repository: RevisedRepository[Any]


class Transaction:
    def __init__(self, executor: Executor) -> None:
        self.models = Models(executor)
        self.artifacts = Artifacts(executor)
        self.deployments = Deployments(executor)
        self.versions = Versions(executor)
        self.replicas = Replicas(executor)
        self.jobs = Jobs(executor)
        self.events = Events(executor)
        self.apps = Apps(executor)
        self.keys = Keys(executor)
        self.uploads = Uploads(executor)

    async def transition(
        self,
        entity: T,
        to_state: State,
        *,
        reason: str,
        message: str,
        actor: str,
        now: datetime,
        **changes: Any,
    ) -> T:
        """Move `entity` to `to_state`, with `changes` to its other fields, and write the event that tells it.

        Raises `IllegalTransition` before anything is written, and `Stale` as `save` does.
        """
        subject = self._subject(entity)
        before = getattr(entity, subject.field)
        subject.machine.check(before, to_state)
        saved = await subject.repository.save(
            replace(entity, **{"modified_at": now, **changes, subject.field: to_state})
        )
        await self.events.add(
            Event(
                event_id=new_id("ev"),
                at=now,
                subject=subject.id,
                before=before,
                after=to_state,
                reason=reason,
                message=message,
                actor=actor,
                deployment_id=subject.deployment_id,
                model_id=subject.model_id,
            )
        )
        return saved

    def _subject(self, entity: Model | Version | Replica | Job) -> _Subject:
        match entity:
            case Model():
                return _Subject(entity.model_id, entity.model_id, None, "state", MODEL, self.models)
            case Version():
                return _Subject(
                    entity.version_id, entity.model_id, entity.deployment_id, "state", VERSION, self.versions
                )
            case Replica():
                return _Subject(entity.replica_id, None, entity.deployment_id, "state", REPLICA, self.replicas)
            case Job():
                return _Subject(entity.job_id, entity.model_id, entity.deployment_id, "status", JOB, self.jobs)
