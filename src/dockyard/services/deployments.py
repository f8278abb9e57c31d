"""What is deployed: read deployments with their versions, replicas, events and logs; change the endpoint timeout."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dockyard.domain.deployment import Deployment, Version, deployment_state
from dockyard.domain.event import Event
from dockyard.domain.lifecycle import REPLICA, DeploymentState, VersionState
from dockyard.domain.replica import Replica
from dockyard.domain.replica_plan import failures_in_a_row
from dockyard.protocols.generation import Health
from dockyard.services.context import Context
from dockyard.store.paging import Page
from dockyard.store.transaction import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentView:
    """A deployment as a person sees it. `current`: the version that serves, else the newest; `replicas`: the living."""

    deployment: Deployment
    state: DeploymentState
    current: Version | None
    versions: tuple[Version, ...]
    replicas: tuple[Replica, ...]
    last_failure: Replica | None  # the replica that failed last, if that was the current version's


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaView:
    """A living replica, its version's number, and its own latest account, if it has given one."""

    replica: Replica
    version_number: int
    health: Health | None
    last_failure: Replica | None  # the failed replica in whose place this one was started


async def get_deployment(ctx: Context, deployment_id: str) -> DeploymentView:
    async with ctx.store.reading() as tx:
        return await _view(tx, await tx.deployments.get(deployment_id))


async def list_deployments(
    ctx: Context, limit: int, cursor: str | None, model_id: str | None = None
) -> Page[DeploymentView]:
    async with ctx.store.reading() as tx:
        if model_id is not None:
            await tx.models.get(model_id)
        page = await tx.deployments.page(limit, cursor, model_id=model_id)
        views = [await _view(tx, deployment) for deployment in page.items]
    return Page(items=tuple(views), total=page.total, next_cursor=page.next_cursor)


async def list_versions(ctx: Context, deployment_id: str, limit: int, cursor: str | None) -> Page[Version]:
    async with ctx.store.reading() as tx:
        await tx.deployments.get(deployment_id)
        return await tx.versions.page(deployment_id, limit, cursor)


async def list_replicas(ctx: Context, deployment_id: str) -> tuple[ReplicaView, ...]:
    """The living replicas, oldest first."""
    async with ctx.store.reading() as tx:
        await tx.deployments.get(deployment_id)
        versions = {v.version_id: v for v in await tx.versions.of_deployment(deployment_id)}
        replicas = await tx.replicas.of_deployment(deployment_id)
    statuses = ctx.fleet.statuses()
    views = [
        ReplicaView(
            replica=replica,
            version_number=versions[replica.version_id].number,
            health=statuses[replica.replica_id].health if replica.replica_id in statuses else None,
            last_failure=_last_failure([r for r in replicas if r.version_id == replica.version_id])
            if replica.restarts
            else None,
        )
        for replica in replicas
        if not REPLICA.is_final(replica.state)
    ]
    return tuple(sorted(views, key=lambda view: view.replica.created_at))


async def list_events(ctx: Context, deployment_id: str, limit: int, cursor: str | None) -> Page[Event]:
    """Newest first."""
    async with ctx.store.reading() as tx:
        await tx.deployments.get(deployment_id)
        return await tx.events.page(limit, cursor, deployment_id=deployment_id)


async def read_logs(ctx: Context, deployment_id: str, lines: int) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(replica id, its last lines) for each replica that has any, also of the ones that failed, oldest first."""
    async with ctx.store.reading() as tx:
        await tx.deployments.get(deployment_id)
        replicas = await tx.replicas.of_deployment(deployment_id)
    logs = ((replica.replica_id, _lines(ctx, replica, lines)) for replica in sorted(replicas, key=_created_at))
    return tuple((replica_id, text) for replica_id, text in logs if text)


async def set_endpoint_timeout(ctx: Context, deployment_id: str, seconds: int) -> DeploymentView:
    """Change the endpoint timeout; requests that arrive from now on have it."""
    async with ctx.store.transaction() as tx:
        deployment = await tx.deployments.get(deployment_id)
        now = ctx.clock.now()
        deployment = await tx.deployments.save(replace(deployment, endpoint_timeout_s=seconds, modified_at=now))
        view = await _view(tx, deployment)
    ctx.wake()
    return view


async def _view(tx: Transaction, deployment: Deployment) -> DeploymentView:
    versions = await tx.versions.of_deployment(deployment.deployment_id)
    replicas = await tx.replicas.of_deployment(deployment.deployment_id)
    serving = [version for version in versions if version.state is VersionState.DEPLOYED]
    current = max(serving or versions, key=lambda version: version.number, default=None)
    of_current = [replica for replica in replicas if current and replica.version_id == current.version_id]
    living = [replica for replica in replicas if not REPLICA.is_final(replica.state)]
    return DeploymentView(
        deployment=deployment,
        state=deployment_state(deployment, versions, of_current, failures_in_a_row(of_current)),
        current=current,
        versions=tuple(versions),
        replicas=tuple(living),
        last_failure=_last_failure(of_current),
    )


def _last_failure(replicas: Sequence[Replica]) -> Replica | None:
    failed = [replica for replica in replicas if replica.failure is not None]
    return max(failed, key=lambda replica: replica.stopped_at or replica.modified_at, default=None)


def _lines(ctx: Context, replica: Replica, lines: int) -> tuple[str, ...]:
    kept = tuple(ctx.fleet.logs(replica.replica_id, lines))
    return kept or (replica.failure.log_tail if replica.failure else ())


def _created_at(replica: Replica) -> str:
    return replica.created_at.isoformat()
