"""The state machines, one transition table each. Whatever a table does not list raises `IllegalTransition`."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Generic, TypeVar

from dockyard.errors import Conflict

S = TypeVar("S", bound=StrEnum)


class IllegalTransition(Conflict):
    """The state machine has no such transition."""


class ModelState(StrEnum):
    IMPORTING = "Importing"
    VALIDATING = "Validating"
    READY = "Ready to Deploy"
    FAILED = "Import Failed"


class VersionState(StrEnum):
    PENDING = "Pending"
    OPTIMIZING = "Optimizing"
    DEPLOYING = "Deploying"
    DEPLOYED = "Deployed"
    DRAINING = "Draining"
    RETIRED = "Retired"
    FAILED = "Failed"


class ReplicaState(StrEnum):
    PENDING = "Pending"
    STARTING = "Starting"
    LOADING = "Loading"
    READY = "Ready"
    DRAINING = "Draining"
    STOPPED = "Stopped"
    FAILED = "Failed"


class JobStatus(StrEnum):
    IN_PROGRESS = "IN_PROGRESS"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"


class DeploymentState(StrEnum):
    """Not a machine of its own: derived from the versions and replicas, see `deployment.deployment_state`."""

    OPTIMIZING = "Optimizing"
    DEPLOYING = "Deploying"
    DEPLOYED = "Deployed"
    FAILED = "Failed"
    UNDEPLOYING = "Undeploying"
    UNDEPLOYED = "Undeployed"


class Machine(Generic[S]):
    """A transition table with a name. `Machine.check` is the only judge of what may follow what."""

    def __init__(self, name: str, initial: S, table: Mapping[S, tuple[S, ...]]) -> None:
        self.name = name
        self.initial = initial
        self.table = table

    def check(self, before: S, after: S) -> None:
        """Raise `IllegalTransition` unless the table leads from `before` to `after`."""
        if after not in self.table[before]:
            allowed = ", ".join(self.table[before]) or "nothing: it is final"
            raise IllegalTransition(
                f"a {self.name} cannot go from {before} to {after}; from there it goes to {allowed}"
            )

    def is_final(self, state: S) -> bool:
        return not self.table[state]


MODEL = Machine(
    "model",
    ModelState.IMPORTING,
    {
        ModelState.IMPORTING: (ModelState.VALIDATING, ModelState.FAILED),
        ModelState.VALIDATING: (ModelState.READY, ModelState.FAILED),
        ModelState.READY: (),
        ModelState.FAILED: (),
    },
)

VERSION = Machine(
    "version",
    VersionState.PENDING,
    {
        VersionState.PENDING: (VersionState.OPTIMIZING, VersionState.DEPLOYING, VersionState.FAILED),
        VersionState.OPTIMIZING: (VersionState.DEPLOYING, VersionState.FAILED),
        VersionState.DEPLOYING: (VersionState.DEPLOYED, VersionState.FAILED),
        VersionState.DEPLOYED: (VersionState.DRAINING,),
        VersionState.DRAINING: (VersionState.RETIRED,),
        VersionState.RETIRED: (),
        VersionState.FAILED: (),
    },
)

REPLICA = Machine(
    "replica",
    ReplicaState.PENDING,
    {
        ReplicaState.PENDING: (ReplicaState.STARTING, ReplicaState.STOPPED, ReplicaState.FAILED),
        ReplicaState.STARTING: (
            ReplicaState.LOADING,
            ReplicaState.READY,  # the states in between were too short to be seen
            ReplicaState.DRAINING,
            ReplicaState.STOPPED,
            ReplicaState.FAILED,
        ),
        ReplicaState.LOADING: (
            ReplicaState.READY,
            ReplicaState.DRAINING,
            ReplicaState.STOPPED,
            ReplicaState.FAILED,
        ),
        ReplicaState.READY: (ReplicaState.DRAINING, ReplicaState.STOPPED, ReplicaState.FAILED),
        ReplicaState.DRAINING: (ReplicaState.STOPPED, ReplicaState.FAILED),
        ReplicaState.STOPPED: (),
        ReplicaState.FAILED: (),
    },
)

JOB = Machine(
    "job",
    JobStatus.IN_PROGRESS,
    {
        JobStatus.IN_PROGRESS: (JobStatus.SUCCESS, JobStatus.FAILED),
        JobStatus.SUCCESS: (),
        JobStatus.FAILED: (),
    },
)

MACHINES = (MODEL, VERSION, REPLICA, JOB)
