"""Deployments, their versions, replicas, events and logs as they read, and what can be changed of them."""

from typing import Annotated, Literal

from pydantic import Field

from dockyard.api.wire.base import Listing, Moment, Warnings, WireIn, WireOut, some
from dockyard.api.wire.fields import Integer
from dockyard.api.wire.parameters import ParametersOut
from dockyard.domain.deployment import Version
from dockyard.domain.event import Event
from dockyard.domain.lifecycle import DeploymentState, ReplicaState, VersionState
from dockyard.domain.replica import Replica
from dockyard.domain.spec import ENDPOINT_TIMEOUT_S, Bounds
from dockyard.errors import Reason
from dockyard.services.deployments import DeploymentView, ReplicaView


class ChangeDeploymentIn(WireIn):
    endpoint_timeout: Annotated[int, Integer(ENDPOINT_TIMEOUT_S)] = Field(
        description="Seconds after which a request to the deployment is given up with 504."
    )


class RollbackIn(WireIn):
    version: Annotated[int, Integer(Bounds(1, 1_000_000))] = Field(description="The version to deploy again.")


class FailureOut(WireOut):
    reason: Reason
    message: str
    at: Moment
    log_tail: tuple[str, ...]

    @classmethod
    def of(cls, replica: Replica) -> "FailureOut | None":
        failure = replica.failure
        if failure is None:
            return None
        return cls(reason=failure.reason, message=failure.message, at=failure.at, log_tail=failure.log_tail)


class VersionOut(WireOut):
    version_id: str
    deployment_id: str
    model_id: str
    version: int
    version_name: str
    state: VersionState
    engine: str
    compute_type: str
    runs_on: str
    context_length: int | None = Field(
        description="Tokens that the device leaves room for; null: the model has no bound."
    )
    memory_bytes: int = Field(description="What one replica is expected to take.")
    parameters: ParametersOut
    dock_status_id: str
    reason: Reason | None = Field(description="Why it failed.")
    message: str | None
    log_tail: tuple[str, ...]
    created_on: Moment
    l_mod: Moment
    deployed_on: Moment | None

    @classmethod
    def of(cls, version: Version) -> "VersionOut":
        runtime = version.runtime
        return cls(
            version_id=version.version_id,
            deployment_id=version.deployment_id,
            model_id=version.model_id,
            version=version.number,
            version_name=version.name,
            state=version.state,
            engine=runtime.engine,
            compute_type=runtime.compute_type,
            runs_on=runtime.runs_on,
            context_length=runtime.context_length,
            memory_bytes=runtime.memory_bytes,
            parameters=ParametersOut.of(version.spec),
            dock_status_id=version.job_id,
            reason=version.reason,
            message=version.message,
            log_tail=version.log_tail,
            created_on=version.created_at,
            l_mod=version.modified_at,
            deployed_on=version.deployed_at,
        )


class VersionsOut(Listing):
    versions: tuple[VersionOut, ...]


class ReplicaCountOut(WireOut):
    ready: int
    living: int = Field(description="Those that start or drain included.")


class DeploymentOut(WireOut):
    """`current` is the version that serves, else the newest one."""

    deployment_id: str
    model_id: str
    name: str
    state: DeploymentState
    endpoint_timeout: int
    endpoint_timeout_unit: Literal["s"] = "s"
    current: VersionOut | None
    replicas: ReplicaCountOut
    last_failure: FailureOut | None
    created_on: Moment
    l_mod: Moment
    warnings: Warnings = ()

    @classmethod
    def of(cls, view: DeploymentView, warnings: tuple[str, ...] = ()) -> "DeploymentOut":
        deployment = view.deployment
        ready = sum(replica.state is ReplicaState.READY for replica in view.replicas)
        return cls(
            deployment_id=deployment.deployment_id,
            model_id=deployment.model_id,
            name=deployment.name,
            state=view.state,
            endpoint_timeout=deployment.endpoint_timeout_s,
            current=some(view.current, VersionOut.of),
            replicas=ReplicaCountOut(ready=ready, living=len(view.replicas)),
            last_failure=some(view.last_failure, FailureOut.of),
            created_on=deployment.created_at,
            l_mod=deployment.modified_at,
            warnings=warnings,
        )


class DeploymentsOut(Listing):
    deployments: tuple[DeploymentOut, ...]


class TimingsOut(WireOut):
    """Milliseconds, each null until the step is done."""

    spawn_ms: float | None = None
    import_ms: float | None = None
    load_ms: float | None = None
    warm_up_ms: float | None = None


class ReplicaOut(WireOut):
    replica_id: str
    state: ReplicaState
    pid: int | None
    host: str
    engine: str
    compute_type: str
    runs_on: str
    gpus: tuple[str, ...] = Field(description="UUIDs of the GPUs that it has, to itself or with others of its engine.")
    version: int
    running: int = Field(description="Requests in the engine now.")
    waiting: int = Field(description="Requests that the replica holds back until the engine is free.")
    largest_batch: int = Field(description="Rows of the largest batch that the engine has run; at most maxBatchSize.")
    started_on: Moment | None
    ready_on: Moment | None
    timings: TimingsOut
    restarts: int
    last_failure: FailureOut | None = Field(description="Of the replica in whose place this one was started.")

    @classmethod
    def of(cls, view: ReplicaView) -> "ReplicaOut":
        replica, health = view.replica, view.health
        return cls(
            replica_id=replica.replica_id,
            state=replica.state,
            pid=replica.pid,
            host=replica.host,
            engine=replica.engine,
            compute_type=replica.compute_type,
            runs_on=replica.runs_on,
            gpus=replica.gpus,
            version=view.version_number,
            running=health.running if health else 0,
            waiting=health.waiting if health else 0,
            largest_batch=health.largest_batch if health else 0,
            started_on=replica.started_at,
            ready_on=replica.ready_at,
            timings=TimingsOut(**(replica.timings or {})),
            restarts=replica.restarts,
            last_failure=some(view.last_failure, FailureOut.of),
        )


class ReplicasOut(Listing):
    replicas: tuple[ReplicaOut, ...]


class EventOut(WireOut):
    event_id: str
    at: Moment
    subject: str = Field(description="The id of what changed.")
    before: str | None = Field(serialization_alias="from")
    after: str = Field(serialization_alias="to")
    reason: str
    message: str
    actor: str = Field(description="The id of the key that asked for it, or `dockyard`.")

    @classmethod
    def of(cls, event: Event) -> "EventOut":
        return cls(**{name: getattr(event, name) for name in cls.model_fields})


class EventsOut(Listing):
    events: tuple[EventOut, ...]


class LogOut(WireOut):
    replica_id: str
    lines: tuple[str, ...]


class LogsOut(WireOut):
    """Of each replica that wrote any, also of those that failed; oldest replica and oldest line first."""

    logs: tuple[LogOut, ...]
