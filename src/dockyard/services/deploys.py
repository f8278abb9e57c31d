"""Deploy, redeploy, rollback and undeploy: check everything, write down what is wanted, return. Loops do the rest."""

from collections.abc import Sequence
from dataclasses import replace

from dockyard.domain.deployment import Deployment, Version
from dockyard.domain.event import Event
from dockyard.domain.ids import new_id
from dockyard.domain.job import Action, Job
from dockyard.domain.lifecycle import VersionState
from dockyard.errors import Conflict, NotFound, Reason
from dockyard.services.context import Context
from dockyard.services.deploy_checks import DeployPlan, DeployWish, check_deploy, check_no_open_job, find_deployment
from dockyard.services.routes import route_of
from dockyard.store.transaction import Transaction


async def plan_deploy(ctx: Context, model_id: str, wish: DeployWish) -> DeployPlan:
    """All checks of a deploy, and what it would do. Starts nothing, writes nothing."""
    async with ctx.store.reading() as tx:
        return await check_deploy(ctx, tx, model_id, wish)


async def deploy_model(ctx: Context, model_id: str, wish: DeployWish, actor: str) -> Job:
    """Accept a deploy or redeploy. The new version takes over once it has proven itself.

    Raises `NotFound`; `Conflict` (MODEL_NOT_READY, NAME_TAKEN, JOB_IN_PROGRESS); `Invalid` with all problems at once.
    """
    async with ctx.store.transaction() as tx:
        plan = await check_deploy(ctx, tx, model_id, wish)
        known = await find_deployment(tx, model_id, wish.name)
        deployment, version, job = await _accept(ctx, tx, plan, known, wish.name, actor)
    if deployment.deployment_id not in ctx.router.published():  # requests may come, and wait, from the reply on
        ctx.router.publish(route_of(deployment, version, ()))
    ctx.wake()
    return job


async def rollback(ctx: Context, deployment_id: str, number: int, actor: str) -> Job:
    """Deploy the parameters of an earlier version again, as a new version that takes over like any redeploy.

    Raises `NotFound`; `Conflict` (NOT_DEPLOYED, JOB_IN_PROGRESS, VERSION_SERVES, VERSION_NEVER_SERVED); `Invalid`.
    """
    async with ctx.store.transaction() as tx:
        deployment = await tx.deployments.get(deployment_id)
        if not deployment.wanted:
            raise Conflict(f"{deployment.name} is undeployed; deploy it again", reason=Reason.NOT_DEPLOYED)
        model = await tx.models.get(deployment.model_id)
        versions = await tx.versions.of_deployment(deployment_id)
        old = next((version for version in versions if version.number == number), None)
        if old is None:
            known = ", ".join(str(version.number) for version in versions)
            raise NotFound(f"{deployment.name} has no version {number}; it has {known}", field="version")
        wish = DeployWish(name=deployment.name, model_type=model.model_type, spec=old.spec, is_deployed_previously=True)
        plan = await check_deploy(ctx, tx, deployment.model_id, wish)
        _check_goes_back(deployment, old, versions)
        _, _, job = await _accept(ctx, tx, plan, deployment, deployment.name, actor)
    ctx.wake()
    return job


def _check_goes_back(deployment: Deployment, old: Version, versions: Sequence[Version]) -> None:
    """Raise `Conflict` where a rollback to `old` would change nothing, or repeat what failed."""
    if old.state is VersionState.FAILED:
        served = ", ".join(str(v.number) for v in versions if v.state is not VersionState.FAILED)
        raise Conflict(
            f"version {old.number} of {deployment.name} failed with {old.reason} and never served; "
            f"roll back to one that did ({served or 'there is none'}), or deploy its parameters again",
            reason=Reason.VERSION_NEVER_SERVED,
            field="version",
        )
    if old.number == max((v.number for v in versions if v.state is VersionState.DEPLOYED), default=None):
        raise Conflict(
            f"version {old.number} of {deployment.name} is the one that serves; "
            "roll back to an earlier one, or deploy again to start it anew",
            reason=Reason.VERSION_SERVES,
            field="version",
        )


async def undeploy_model(ctx: Context, model_id: str, name: str | None, actor: str) -> Job:
    """Undeploy one deployment of a model by name, or all of them. New requests are refused from the reply on.

    Raises `NotFound`; `Conflict` (NOT_DEPLOYED, JOB_IN_PROGRESS).
    """
    now = ctx.clock.now()
    async with ctx.store.transaction() as tx:
        model = await tx.models.get(model_id)
        chosen = [d for d in await tx.deployments.of_model(model_id) if d.wanted and name in (None, d.name)]
        if not chosen:
            what = f"no deployment named {name!r}" if name else "no deployment"
            raise Conflict(f"{model.name} has {what} to undeploy", reason=Reason.NOT_DEPLOYED)
        for deployment in chosen:
            await check_no_open_job(tx, deployment)
        job = Job(
            job_id=new_id("ds"),
            model_id=model_id,
            action=Action.UNDEPLOY,
            created_at=now,
            modified_at=now,
            deployment_id=chosen[0].deployment_id if len(chosen) == 1 else None,
            deployment_name=chosen[0].name if len(chosen) == 1 else None,
            request={"deployments": [deployment.deployment_id for deployment in chosen]},
        )
        for deployment in chosen:
            await tx.deployments.save(replace(deployment, wanted=False, modified_at=now))
            await tx.events.add(_event(ctx, deployment, "Deployed", "Undeploying", "UNDEPLOY_REQUESTED", "", actor))
        await tx.jobs.add(job)
    for deployment in chosen:
        ctx.router.withdraw(deployment.deployment_id)
    ctx.wake()
    return job


async def _accept(
    ctx: Context, tx: Transaction, plan: DeployPlan, deployment: Deployment | None, name: str, actor: str
) -> tuple[Deployment, Version, Job]:
    """Write deployment, version, job and their events. Nothing has started when this returns."""
    now = ctx.clock.now()
    if deployment is None:
        deployment = Deployment(
            deployment_id=new_id("dp"), model_id=plan.model.model_id, name=name, created_at=now, modified_at=now
        )
        await tx.deployments.add(deployment)
    elif not deployment.wanted:
        deployment = await tx.deployments.save(replace(deployment, wanted=True, modified_at=now))
    job = Job(
        job_id=new_id("ds"),
        model_id=plan.model.model_id,
        action=Action.DEPLOY,
        created_at=now,
        modified_at=now,
        deployment_id=deployment.deployment_id,
        deployment_name=name,
        version_id=new_id("vr"),
        deployment_version=plan.deployment_version,
        warnings=plan.warnings,
    )
    version = Version(
        version_id=job.version_id or "",
        deployment_id=deployment.deployment_id,
        model_id=plan.model.model_id,
        number=plan.deployment_version,
        name=plan.version_name,
        spec=plan.spec,
        runtime=plan.runtime,
        job_id=job.job_id,
        created_at=now,
        modified_at=now,
    )
    await tx.versions.add(version)
    await tx.jobs.add(job)
    message = f"version {version.number} on {plan.runtime.runs_on}"
    await tx.events.add(
        _event(ctx, deployment, None, VersionState.PENDING, "DEPLOY_REQUESTED", message, actor, version.version_id)
    )
    return deployment, version, job


def _event(
    ctx: Context,
    deployment: Deployment,
    before: str | None,
    after: str,
    reason: str,
    message: str,
    actor: str,
    subject: str | None = None,
) -> Event:
    return Event(
        event_id=new_id("ev"),
        at=ctx.clock.now(),
        subject=subject or deployment.deployment_id,
        before=before,
        after=after,
        reason=reason,
        message=message,
        actor=actor,
        deployment_id=deployment.deployment_id,
        model_id=deployment.model_id,
    )
