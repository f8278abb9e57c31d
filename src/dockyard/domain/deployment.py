"""A deployment, its versions, and the state that a person sees."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from dockyard.domain.lifecycle import DeploymentState, ReplicaState, VersionState
from dockyard.domain.replica import Replica
from dockyard.domain.spec import DEFAULT_ENDPOINT_TIMEOUT_S, DeploySpec, EngineName
from dockyard.errors import Reason

CRASH_LOOP_AFTER = 3  # failures in a row without one replica ready: what is called Deployed then is not


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A name under which a model is served. `wanted` False: undeploy it; the row stays for its history."""

    deployment_id: str
    model_id: str
    name: str
    created_at: datetime
    modified_at: datetime
    endpoint_timeout_s: int = DEFAULT_ENDPOINT_TIMEOUT_S
    wanted: bool = True
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """How a version runs, decided once when it is accepted: engine, device, precision, memory.

    `runs_on` is for people: `cpu (standing in for g5.xlarge)`. Memory in bytes, per replica.
    """

    engine: EngineName
    device: str  # "cpu" or "cuda"
    gpus: int
    compute_type: str  # "float32", "int8_float32", …
    runs_on: str
    context_length: int | None
    memory_bytes: int

    @property
    def bytes_each(self) -> int:
        """On each of its GPUs."""
        return -(-self.memory_bytes // max(1, self.gpus))


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One set of parameters of a deployment. `number` counts from 1; `name` follows the published rule."""

    version_id: str
    deployment_id: str
    model_id: str
    number: int
    name: str
    spec: DeploySpec
    runtime: Runtime
    job_id: str
    created_at: datetime
    modified_at: datetime
    state: VersionState = VersionState.PENDING
    artifact_key: str | None = None
    reason: Reason | None = None
    message: str | None = None
    log_tail: tuple[str, ...] = field(default=())
    deployed_at: datetime | None = None
    revision: int = 0


def version_name(name: str, number: int) -> str:
    """The published rule: `Flan T5`, then `Flan T5_v1`, `Flan T5_v2` …; `number` counts from 1."""
    return name if number == 1 else f"{name}_v{number - 1}"


LIVE = frozenset(
    {
        VersionState.PENDING,
        VersionState.OPTIMIZING,
        VersionState.DEPLOYING,
        VersionState.DEPLOYED,
        VersionState.DRAINING,
    }
)


def deployment_state(
    deployment: Deployment,
    versions: Sequence[Version],
    replicas: Sequence[Replica],
    failures_in_a_row: int = 0,
) -> DeploymentState:
    """What a person is told. A version that once was Deployed and now only crashes is not called Deployed.

    `replicas`: those of the deployment's versions; `failures_in_a_row`: of the serving version's replicas since one
    of them was last ready.
    """
    states = {version.state for version in versions}
    if not deployment.wanted:
        return DeploymentState.UNDEPLOYING if states & LIVE else DeploymentState.UNDEPLOYED
    if VersionState.DEPLOYED in states:
        ready = any(replica.state is ReplicaState.READY for replica in replicas)
        crashed = not ready and failures_in_a_row >= CRASH_LOOP_AFTER
        return DeploymentState.FAILED if crashed else DeploymentState.DEPLOYED
    if states & {VersionState.PENDING, VersionState.OPTIMIZING}:
        return DeploymentState.OPTIMIZING
    if VersionState.DEPLOYING in states:
        return DeploymentState.DEPLOYING
    return DeploymentState.FAILED
