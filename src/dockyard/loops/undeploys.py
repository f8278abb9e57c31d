"""Undeploy jobs: they end when the last replica of their deployments has."""

import contextlib

from dockyard.domain.deployment import LIVE
from dockyard.domain.job import Action, Job, Phase, advance, succeed
from dockyard.domain.lifecycle import VersionState
from dockyard.errors import Stale
from dockyard.services.context import Context
from dockyard.store.transaction import Transaction


async def settle_undeploys(ctx: Context) -> None:
    """Move each undeploy job to the phase its deployments are in; the last one gone is its success."""
    async with ctx.store.reading() as tx:
        jobs = [job for job in await tx.jobs.in_progress() if job.action is Action.UNDEPLOY]
    for job in jobs:
        with contextlib.suppress(Stale):
            async with ctx.store.transaction() as tx:
                await _settle(ctx, tx, await tx.jobs.get(job.job_id))


async def _settle(ctx: Context, tx: Transaction, job: Job) -> None:
    now = ctx.clock.now()
    versions = [
        version
        for deployment_id in job.request["deployments"]
        for version in await tx.versions.of_deployment(deployment_id)
        if version.state in LIVE
    ]
    if not versions:
        count = len(job.request["deployments"])
        await tx.jobs.save(succeed(job, f"{count} deployment(s) undeployed", now, {"undeployed": count}))
        return
    draining = any(version.state is VersionState.DRAINING for version in versions)
    phase = Phase.DRAINING if draining or job.phase is Phase.QUEUED else job.phase
    replicas = [r for version in versions for r in await tx.replicas.of_version(version.version_id)]
    running = sum(ctx.router.open_requests(replica.replica_id) for replica in replicas)
    if not running:
        phase = Phase.STOPPING
    message = f"{running} request(s) still running" if running else "replicas stop"
    if (phase, message) != (job.phase, job.message):
        await tx.jobs.save(advance(job, phase, message, now))
