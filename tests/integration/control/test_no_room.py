"""A host without memory for what the demand needs: told once, served by who is there, made good later."""

from dataclasses import replace

import pytest
from tests.integration.control.stage import Stage, a_wish, ready_model

from dockyard.domain.event import Event
from dockyard.services.deploys import deploy_model


async def shortages(stage: Stage, deployment_id: str) -> list[Event]:
    async with stage.ctx.store.reading() as tx:
        events = (await tx.events.page(100, deployment_id=deployment_id)).items
    return [event for event in events if event.reason == "NO_CAPACITY"]


async def test_it_is_an_event_and_who_is_there_serves_on(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await deploy_model(stage.ctx, (await ready_model(stage)).model_id, a_wish(max_replicas=3), "test")
    await stage.settle()
    deployment_id = job.deployment_id or ""
    before = stage.router.routes[deployment_id]
    roomy = stage.host
    stage.host = replace(roomy, available_bytes=0)
    monkeypatch.setattr(stage.autoscaler, "desired", lambda deployment_id: 3)
    for _ in range(3):
        await stage.settle()
    (told,) = await shortages(stage, deployment_id)
    assert (told.before, told.after) == ("1 replica(s)", "3 replica(s)")
    assert "no memory free for 2 more replica(s); 1 go on serving the queue" in told.message
    assert stage.router.routes[deployment_id] == before

    stage.host = roomy
    await stage.settle()
    assert len(stage.router.routes[deployment_id].replicas) == 3
    assert len(await shortages(stage, deployment_id)) == 1
