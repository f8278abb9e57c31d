"""What becomes of artifacts that nobody needs any more: those of a deleted model at once, the others when asked."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from dockyard.domain.job import Action
from dockyard.domain.lifecycle import VersionState
from dockyard.domain.model import Model
from dockyard.domain.pruning import Prunable, Usage, made_from, named_keys, plan_prune, with_models
from dockyard.services.context import Context
from dockyard.store.transaction import Transaction

UNUSED_DAYS = 30  # what was converted for a deployment of that long ago is made again if it is ever deployed anew

_NOT_MADE = (VersionState.PENDING, VersionState.OPTIMIZING)  # these look for their artifact, or make it


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """What was removed, or would be."""

    pruned: tuple[Prunable, ...]
    freed_bytes: int


async def prune_artifacts(ctx: Context, unused_for: timedelta, *, dry_run: bool) -> Pruning:
    """Remove the artifacts that nothing needs and that no version ran on for `unused_for`; imported files stay.

    One transaction decides and removes: a deploy is accepted before it, and then keeps its artifacts, or after it, and
    then makes them again.
    """
    stored = await ctx.preparer.stored()
    if dry_run:
        async with ctx.store.reading() as tx:
            plan = await _plan(tx, stored, ctx.clock.now() - unused_for)
        return Pruning(pruned=plan, freed_bytes=sum(prunable.size_bytes for prunable in plan))
    async with ctx.store.transaction() as tx:
        plan = await _plan(tx, stored, ctx.clock.now() - unused_for)
        freed = 0
        for prunable in plan:
            freed += await ctx.preparer.discard(prunable.key)
            await tx.artifacts.delete(prunable.key)
    return Pruning(pruned=plan, freed_bytes=freed)


async def forget_model(tx: Transaction, model: Model) -> list[str]:
    """Delete the model's row and those of the artifacts that no other model needs; returns their keys."""
    artifacts = await tx.artifacts.all()
    own = made_from(named_keys([model]), artifacts)
    await tx.models.delete(model.model_id)
    needed = made_from(named_keys(await tx.models.all()), artifacts)
    orphans = [artifact.key for artifact in artifacts if artifact.key in own - needed]
    for key in orphans:
        await tx.artifacts.delete(key)
    return orphans


async def discard_orphans(ctx: Context, keys: Collection[str]) -> int:
    """Remove the files of a deleted model once its row is gone for good; returns the bytes freed.

    A model that came by the same files in the meantime keeps them.
    """
    async with ctx.store.transaction() as tx:
        if named_keys(await tx.models.all()) & set(keys):
            return 0
        return sum([await ctx.preparer.discard(key) for key in keys])


async def _plan(tx: Transaction, stored: Mapping[str, int], before: datetime) -> tuple[Prunable, ...]:
    artifacts = await tx.artifacts.all()
    models = {model.model_id: model for model in await tx.models.all()}
    jobs = await tx.jobs.in_progress()
    live = await tx.versions.live()
    busy = {job.request["artifactKey"] for job in jobs if job.action is Action.EXPORT}
    for version in live:
        busy |= named_keys([models[version.model_id]]) | {version.artifact_key or ""}
        if version.state in _NOT_MADE:
            busy |= made_from(named_keys([models[version.model_id]]), artifacts)
    last_used: dict[str, datetime] = {}
    for model_id, artifact_key, at in await tx.versions.last_use():
        for key in (artifact_key, models[model_id].weights_key, models[model_id].apart_key):
            if key:
                last_used[key] = max(at, last_used.get(key, at))
    usage = Usage(
        named=named_keys(models.values()),
        busy=busy,
        last_used=last_used,
        settled=not any(job.action is Action.IMPORT for job in jobs)
        and not any(version.state in _NOT_MADE for version in live),
    )
    return with_models(plan_prune(artifacts, stored, usage, before), models.values(), artifacts)
