"""The reconciler: for each deployment load → plan (domain) → apply, until what is there is what is wanted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import structlog

from dockyard.domain.deployment import LIVE, Deployment, Version
from dockyard.domain.devices import Host
from dockyard.domain.fit import replicas_that_fit
from dockyard.domain.job import Action, Job, Phase, advance, fail, succeed
from dockyard.domain.lifecycle import ReplicaState, VersionState
from dockyard.domain.model import Model
from dockyard.domain.progress import deploy_progress
from dockyard.domain.replica import Replica
from dockyard.domain.rollout import Facts, Move, Plan, plan_rollout
from dockyard.errors import Reason, Stale
from dockyard.loops.observe import observe_replicas
from dockyard.loops.preparing import Preparations
from dockyard.loops.replicas import Replicas
from dockyard.loops.undeploys import settle_undeploys
from dockyard.protocols.routing import Route, RouteReplica
from dockyard.services.context import SYSTEM, Context
from dockyard.store.database import Store
from dockyard.store.transaction import Transaction

log = structlog.get_logger()

# The phases that a deploy passes after its artifact is there; a fast start shows them all the same, in order.
_START_PHASES = (Phase.PROVISIONING, Phase.LOADING, Phase.WARMING_UP, Phase.ROUTING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """All rows that belong to one deployment."""

    deployment: Deployment
    model: Model
    versions: Sequence[Version]
    replicas: Sequence[Replica]
    jobs: dict[str, Job]  # of versions whose deploy is in progress, by version id


class Reconciler:
    """One round looks at every deployment that is wanted or not yet gone. Rounds are cheap when nothing is to do."""

    def __init__(self, ctx: Context, preparations: Preparations, replicas: Replicas, base_url: str) -> None:
        self._ctx = ctx
        self._preparations = preparations
        self._replicas = replicas
        self._base_url = base_url
        self._published: dict[str, Route] = {}

    async def work(self) -> float | None:
        """One round of the loop; the seconds until something is due, 0 if a step has just been made."""
        living = await observe_replicas(self._ctx)
        async with self._ctx.store.reading() as tx:
            deployments = await tx.deployments.all_wanted_or_live()
        host = self._ctx.host()
        waits = [await self._reconcile(deployment, host) for deployment in deployments]
        self._withdraw_all_but({deployment.deployment_id for deployment in deployments if deployment.wanted})
        known = {deployment.deployment_id for deployment in deployments}
        for replica in living:
            if replica.deployment_id not in known:  # of a deployment that is over: a server died while it stopped them
                self._replicas.stop(replica.replica_id)
        await settle_undeploys(self._ctx)
        return min((wait for wait in waits if wait is not None), default=None)

    async def _reconcile(self, deployment: Deployment, host: Host) -> float | None:
        situation = await _load(self._ctx.store, deployment.deployment_id)
        facts = self._facts(situation, host)
        now = self._ctx.clock.now()
        plan = plan_rollout(situation.deployment, situation.versions, situation.replicas, facts, now)
        try:
            await self._apply(situation, plan)
        except Stale:
            return 0.0  # a request changed the rows meanwhile: look again
        if plan.moves or plan.drain:
            return 0.0
        return (plan.wake_at - self._ctx.clock.now()).total_seconds() if plan.wake_at else None

    def _facts(self, situation: Situation, host: Host) -> Facts:
        ctx, source = self._ctx, situation.model.artifact_key or ""
        waiting = [v for v in situation.versions if v.state in (VersionState.PENDING, VersionState.OPTIMIZING)]
        cached = {
            version.version_id: key
            for version in waiting
            if (key := ctx.preparer.cached(source, str(version.runtime.engine), str(version.spec.quantization)))
        }
        need = max((v.runtime.memory_bytes for v in situation.versions if v.state in LIVE), default=1)
        growing = self._replicas.still_growing()
        return Facts(
            cached=cached,
            unmade=self._preparations.failures,
            cancelled=frozenset(version_id for version_id, job in situation.jobs.items() if job.cancel_requested),
            busy=frozenset(r.replica_id for r in situation.replicas if ctx.router.open_requests(r.replica_id)),
            room=replicas_that_fit(host, need) - growing,
            settling=growing > 0,
        )

    async def _apply(self, situation: Situation, plan: Plan) -> None:
        """Route first, so that a version is never called Deployed before requests reach it; then the rows; then
        processes.
        """
        self._publish(situation, plan)
        created: list[Replica] = []
        if plan.moves or plan.drain or plan.starts or situation.jobs:  # a quiet round takes no writer's turn
            async with self._ctx.store.transaction() as tx:
                created = await self._write(tx, situation, plan)
        for version in plan.prepare:
            self._preparations.ensure(version, situation.model.artifact_key or "")
        for move in plan.moves:
            if move.to is VersionState.FAILED:
                self._preparations.cancel(move.version.version_id)
        versions = {version.version_id: version for version in situation.versions}
        for replica in created:
            await self._replicas.start(replica, versions[replica.version_id], situation.model)
        for replica in plan.drain:
            self._replicas.watch_drain(replica.replica_id)
        for replica in plan.stop:
            self._replicas.stop(replica.replica_id)

    async def _write(self, tx: Transaction, situation: Situation, plan: Plan) -> list[Replica]:
        """The rows of a plan, all or none; returns the replicas to start once they are committed."""
        for move in plan.moves:
            await self._move(tx, situation, move)
        for replica in plan.drain:
            await tx.transition(
                replica,
                ReplicaState.DRAINING,
                reason="VERSION_DRAINING",
                message="finishes what runs",
                actor=SYSTEM,
                now=self._ctx.clock.now(),
            )
        await self._narrate(tx, situation, plan)
        return [
            await self._replicas.create(tx, start.version, start.restarts)
            for start in plan.starts
            for _ in range(start.count)
        ]

    async def _move(self, tx: Transaction, situation: Situation, move: Move) -> None:
        now = self._ctx.clock.now()
        version = move.version
        changes: dict[str, Any] = {}
        if move.to is VersionState.DEPLOYING:
            changes = {"artifact_key": move.artifact_key}
        elif move.to is VersionState.DEPLOYED:
            changes = {"deployed_at": now}
        elif move.to is VersionState.FAILED:
            tail = move.failure.log_tail if move.failure else ()
            version = replace(version, reason=Reason(move.reason), message=move.message, log_tail=tail)
        await tx.transition(
            version, move.to, reason=move.reason, message=move.message, actor=SYSTEM, now=now, **changes
        )
        job = situation.jobs.get(version.version_id)
        if job is None:
            return
        if move.to is VersionState.FAILED:
            tail = move.failure.log_tail if move.failure else ()
            await tx.jobs.save(fail(job, Reason(move.reason), move.message, now, tail))
        elif move.to is VersionState.DEPLOYED:
            job = _arrive(job, version, Phase.ROUTING, _passed(Phase.ROUTING, version), now, 1.0)
            await tx.jobs.save(succeed(job, f"{version.name} serves", now, self._response(situation, version)))
        else:
            checked = "request, model, engine, quantization and device are in order"
            job = (
                advance(job, Phase.VALIDATING, checked, now, 1.0) if move.version.state is VersionState.PENDING else job
            )
            words = {
                VersionState.OPTIMIZING: (Phase.OPTIMIZING, f"makes the artifact for {version.runtime.engine}"),
                VersionState.DEPLOYING: (Phase.PROVISIONING, "the artifact is ready; replicas start"),
            }[move.to]
            await tx.jobs.save(advance(job, *words, now))

    async def _narrate(self, tx: Transaction, situation: Situation, plan: Plan) -> None:
        """Tell the jobs of starting versions how far their replicas are."""
        moved = {move.version.version_id for move in plan.moves}
        statuses = self._ctx.fleet.statuses()
        for version in situation.versions:
            job = situation.jobs.get(version.version_id)
            if job is None or version.state is not VersionState.DEPLOYING or version.version_id in moved:
                continue
            own = [replica for replica in situation.replicas if replica.version_id == version.version_id]
            healths = [status.health for r in own if (status := statuses.get(r.replica_id)) and status.alive]
            told = deploy_progress(
                [health.phase if health else "starting" for health in healths],
                version.spec.scaling.min_replicas,
                str(version.runtime.engine),
                sum(1 for replica in own if replica.failure is not None),
            )
            if (told.phase, told.message) != (job.phase, job.message):
                now = self._ctx.clock.now()
                await tx.jobs.save(_arrive(job, version, told.phase, told.message, now, told.share))

    def _publish(self, situation: Situation, plan: Plan) -> None:
        """Tell the gateway which replicas serve, in one step; nothing if that is what it knows already."""
        version, deployment = plan.route, situation.deployment
        if version is None:
            return
        statuses = self._ctx.fleet.statuses()
        leaving = {replica.replica_id for replica in (*plan.drain, *plan.stop)}
        replicas = tuple(
            RouteReplica(replica_id=replica.replica_id, address=status.address, capacity=max(1, status.health.capacity))
            for replica in situation.replicas
            if replica.version_id == version.version_id
            and replica.state is ReplicaState.READY
            and replica.replica_id not in leaving
            and (status := statuses.get(replica.replica_id)) is not None
            and status.alive
            and status.health is not None
        )
        route = Route(
            deployment_id=deployment.deployment_id,
            model_id=deployment.model_id,
            name=deployment.name,
            version_id=version.version_id,
            version_name=version.name,
            engine=str(version.runtime.engine),
            hyper=version.spec.hyper,
            endpoint_timeout_s=deployment.endpoint_timeout_s,
            created_at=version.deployed_at or version.created_at,
            replicas=replicas,
        )
        if self._published.get(deployment.deployment_id) != route:
            self._ctx.router.publish(route)
            self._published[deployment.deployment_id] = route

    def _withdraw_all_but(self, wanted: set[str]) -> None:
        for deployment_id in [known for known in self._published if known not in wanted]:
            self._ctx.router.withdraw(deployment_id)
            del self._published[deployment_id]

    def _response(self, situation: Situation, version: Version) -> dict[str, object]:
        """What a client needs once it is deployed; also what the replicas really run on."""
        return {
            "model": situation.deployment.name,
            "deploymentId": situation.deployment.deployment_id,
            "version": version.number,
            "versionName": version.name,
            "endpoints": {
                "baseUrl": f"{self._base_url}/v1",
                "chatCompletions": f"{self._base_url}/v1/chat/completions",
                "completions": f"{self._base_url}/v1/completions",
            },
            "engine": str(version.runtime.engine),
            "device": version.runtime.device,
            "runsOn": version.runtime.runs_on,
            "computeType": version.runtime.compute_type,
            "contextLength": version.runtime.context_length,
        }


async def _load(store: Store, deployment_id: str) -> Situation:
    async with store.reading() as tx:
        deployment = await tx.deployments.get(deployment_id)
        jobs = await tx.jobs.open_for_deployment(deployment_id)
        return Situation(
            deployment=deployment,
            model=await tx.models.get(deployment.model_id),
            versions=await tx.versions.of_deployment(deployment_id),
            replicas=await tx.replicas.of_deployment(deployment_id),
            jobs={job.version_id: job for job in jobs if job.action is Action.DEPLOY and job.version_id},
        )


def _arrive(job: Job, version: Version, phase: Phase, message: str, now: datetime, share: float) -> Job:
    """`job` at a phase of the start. Those before it that were too short to be seen are told, too, in order; what a
    phase that is over says is that it is over.
    """
    if job.logs and job.logs[-1].phase in _START_PHASES and job.logs[-1].phase is not phase:
        job = advance(job, job.logs[-1].phase, _passed(job.logs[-1].phase, version), now)
    told = {line.phase for line in job.logs}
    for earlier in _START_PHASES[: _START_PHASES.index(phase)]:
        if earlier not in told:
            job = advance(job, earlier, _passed(earlier, version), now, 1.0)
    return advance(job, phase, message, now, share)


def _passed(phase: Phase, version: Version) -> str:
    wanted, engine = version.spec.scaling.min_replicas, version.runtime.engine
    return {
        Phase.PROVISIONING: f"{wanted} {engine} replica(s) started",
        Phase.LOADING: "weights loaded",
        Phase.WARMING_UP: "a real generation succeeded",
        Phase.ROUTING: "requests go to this version",
    }[phase]
