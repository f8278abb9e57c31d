"""Export a model: write down what to pack, and open the archive to whoever has its link."""

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dockyard.domain.deployment import Version
from dockyard.domain.event import Event
from dockyard.domain.export import deploy_config, file_stem, with_base
from dockyard.domain.ids import new_id
from dockyard.domain.job import Action, Job
from dockyard.domain.lifecycle import JobStatus, VersionState
from dockyard.domain.model import Model
from dockyard.errors import NotFound
from dockyard.services.context import Context
from dockyard.services.models import check_ready
from dockyard.store.transaction import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A finished export. `file_name` is safe on every system."""

    path: Path
    stat: os.stat_result
    sha256: str
    file_name: str


async def export_model(ctx: Context, model_id: str, name: str | None, actor: str) -> Job:
    """Begin to pack the model's files with the parameters of its deployment `name`, else of the one deployed last.

    Raises `NotFound`, also for a name that is none of its deployments, and `Conflict` (MODEL_NOT_READY).
    """
    now = ctx.clock.now()
    async with ctx.store.transaction() as tx:
        model = await tx.models.get(model_id)
        check_ready(model, "export")
        found = await _parameters(tx, model, name)
        deployment_name, version = found or (None, None)
        config = deploy_config(model, deployment_name, version.spec if version else None, ctx.policy.delay_unit_ms)
        base = await tx.models.find(model.base_model_id) if model.base_model_id else None
        config = with_base(config, model, base)
        job = Job(
            job_id=new_id("ds"),
            model_id=model_id,
            action=Action.EXPORT,
            created_at=now,
            modified_at=now,
            deployment_name=deployment_name,
            deployment_version=version.number if version else None,
            request={"artifactKey": model.artifact_key, "name": file_stem(model.name), "deployConfig": config},
        )
        await tx.jobs.add(job)
        await tx.events.add(
            Event(
                event_id=new_id("ev"),
                at=now,
                subject=model_id,
                before=model.state,
                after=model.state,
                reason="EXPORT_REQUESTED",
                message=f"export of {model.name}",
                actor=actor,
                model_id=model_id,
            )
        )
    ctx.wake()
    return job


async def open_archive(ctx: Context, job_id: str, expires: int, signature: str) -> Archive:
    """The archive behind a link. Raises `Forbidden` (BAD_SIGNATURE, LINK_EXPIRED), and `NotFound` when it is gone."""
    ctx.downloads.check(job_id, expires, signature, ctx.clock.now())
    async with ctx.store.reading() as tx:
        job = await tx.jobs.find(job_id)
    if job is not None and job.status is JobStatus.SUCCESS and job.response is not None:
        path = ctx.downloads.path(job.job_id)
        try:
            stat = path.stat()
        except FileNotFoundError:
            pass
        else:
            name = f"{job.request['name']}.tar"
            return Archive(path=path, stat=stat, sha256=job.response["sha256"], file_name=name)
    raise NotFound("the archive is gone from the server; export the model again")


def expires_at(job: Job) -> datetime | None:
    """Until when the archive of an export job may be fetched; None if it has none."""
    told = job.response.get("expiresOn") if job.response else None
    return datetime.fromisoformat(told) if isinstance(told, str) else None


async def _parameters(tx: Transaction, model: Model, name: str | None) -> tuple[str, Version] | None:
    """(deployment's name, its version) whose parameters the archive carries; None for a model that is not deployed."""
    candidates: list[tuple[datetime, str, Version]] = []
    for deployment in await tx.deployments.of_model(model.model_id):
        versions = await tx.versions.of_deployment(deployment.deployment_id)
        serving = [version for version in versions if version.state is VersionState.DEPLOYED]
        if name == deployment.name:
            return deployment.name, (serving or versions)[-1]
        candidates += [(version.deployed_at or version.created_at, deployment.name, version) for version in serving]
    if name is not None:
        raise NotFound(f"{model.name} has no deployment named {name!r}", field="name")
    if not candidates:
        return None
    _, newest, version = max(candidates, key=lambda candidate: candidate[0])
    return newest, version
