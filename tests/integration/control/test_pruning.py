"""Deleting and pruning: real store and loops, fake processes. What something needs stays; the rest is told and goes."""

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.integration.control.stage import CARD, Stage, a_wish, ready_model

from dockyard.domain.adapter import AdapterCard
from dockyard.domain.deployment import Version
from dockyard.domain.ids import new_id
from dockyard.domain.lifecycle import ModelState, VersionState
from dockyard.domain.model import Artifact, Model
from dockyard.domain.pruning import Cause
from dockyard.errors import Conflict, Reason
from dockyard.services.deploys import deploy_model, undeploy_model
from dockyard.services.models import delete_model
from dockyard.services.pruning import Pruning, prune_artifacts

NEVER, AT_ONCE = timedelta(days=9999), timedelta(0)
CONVERTED = "weights+ctranslate2+no_quantization"


async def adapter_of(stage: Stage, base: Model, name: str = "tuned", state: ModelState = ModelState.READY) -> Model:
    """An adapter as its import leaves it."""
    now = stage.ctx.clock.now()
    card = replace(CARD, adapter=AdapterCard(base_key="weights", rank=4, parameters=10, modules=("q_proj",)))
    ready = state is ModelState.READY
    model = replace(
        base,
        model_id=new_id("cm"),
        name=name,
        base_model_id=base.model_id,
        artifact_key="adapter" if ready else None,
        card=card if ready else None,
        state=state,
        created_at=now,
    )
    async with stage.ctx.store.transaction() as tx:
        if ready:
            await tx.artifacts.put(
                Artifact(
                    key="adapter",
                    source_key=None,
                    engine=None,
                    quantization=None,
                    size_bytes=1,
                    created_at=now,
                    last_used_at=now,
                )
            )
        await tx.models.add(model)
    return model


async def deployed(stage: Stage, model: Model, name: str = "chat") -> Version:
    await deploy_model(stage.ctx, model.model_id, a_wish(name, optimization=True, min_replicas=1), "test")
    await stage.settle()
    async with stage.ctx.store.reading() as tx:
        [version] = [v for v in await tx.versions.live() if v.name.startswith(name)]
    assert version.state is VersionState.DEPLOYED
    return version


async def keys(stage: Stage) -> set[str]:
    async with stage.ctx.store.reading() as tx:
        return {artifact.key for artifact in await tx.artifacts.all()}


def told(pruning: Pruning) -> dict[str, Cause]:
    return {one.key: one.cause for one in pruning.pruned}


async def test_a_base_stays_while_an_adapter_needs_it(stage: Stage) -> None:
    base = await ready_model(stage, "base")
    tuned = await adapter_of(stage, base)
    with pytest.raises(Conflict, match=rf"base model of tuned \({tuned.model_id}\)") as caught:
        await delete_model(stage.ctx, base.model_id)
    assert caught.value.reason is Reason.BASE_MODEL_IN_USE
    coming = await adapter_of(stage, base, "coming", ModelState.IMPORTING)
    assert await delete_model(stage.ctx, tuned.model_id) == 10
    with pytest.raises(Conflict, match="coming"):
        await delete_model(stage.ctx, base.model_id)
    async with stage.ctx.store.transaction() as tx:
        await tx.models.save(replace(coming, state=ModelState.FAILED))
    assert await delete_model(stage.ctx, base.model_id) == 10
    assert await keys(stage) == set()


async def test_deleting_an_adapter_takes_along_what_was_merged_and_made_of_it(stage: Stage) -> None:
    base = await ready_model(stage, "base")
    tuned = await adapter_of(stage, base)
    await deployed(stage, base, "plain")
    await deployed(stage, tuned)
    merged = tuned.weights_key or ""
    made = f"{merged}+ctranslate2+no_quantization"
    assert await keys(stage) == {"weights", CONVERTED, "adapter", merged, made}
    await undeploy_model(stage.ctx, tuned.model_id, None, "test")
    await stage.settle()
    assert await delete_model(stage.ctx, tuned.model_id) == 30
    assert set(stage.preparer.discarded) == {"adapter", merged, made}
    assert await keys(stage) == {"weights", CONVERTED}


async def test_what_runs_stays_and_what_has_ended_goes_when_it_is_old(stage: Stage) -> None:
    model = await ready_model(stage)
    await deployed(stage, model)
    assert told(await prune_artifacts(stage.ctx, AT_ONCE, dry_run=False)) == {}
    await undeploy_model(stage.ctx, model.model_id, None, "test")
    await stage.settle()
    assert told(await prune_artifacts(stage.ctx, timedelta(days=1), dry_run=False)) == {}

    planned = await prune_artifacts(stage.ctx, AT_ONCE, dry_run=True)
    assert (told(planned), planned.freed_bytes) == ({CONVERTED: Cause.UNUSED}, 10)
    assert stage.preparer.discarded == []
    assert await prune_artifacts(stage.ctx, AT_ONCE, dry_run=False) == planned
    assert stage.preparer.discarded == [CONVERTED]
    assert await keys(stage) == {"weights"}

    await deployed(stage, model)  # made again
    assert await keys(stage) == {"weights", CONVERTED}


async def test_a_deploy_that_has_just_begun_keeps_what_it_will_find(stage: Stage) -> None:
    model = await ready_model(stage)
    await deployed(stage, model)
    await undeploy_model(stage.ctx, model.model_id, None, "test")
    await stage.settle()
    await deploy_model(stage.ctx, model.model_id, a_wish(optimization=True), "test")
    assert told(await prune_artifacts(stage.ctx, AT_ONCE, dry_run=False)) == {}


async def test_left_over_folders_go_once_nothing_is_being_made(stage: Stage) -> None:
    model = await ready_model(stage)
    stage.preparer.artifacts.add("left-over")
    await deploy_model(stage.ctx, model.model_id, a_wish(optimization=True), "test")
    assert told(await prune_artifacts(stage.ctx, NEVER, dry_run=False)) == {}
    await stage.settle()
    assert told(await prune_artifacts(stage.ctx, NEVER, dry_run=False)) == {"left-over": Cause.UNKNOWN}
