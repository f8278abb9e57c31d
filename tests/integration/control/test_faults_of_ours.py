"""A fault of Dockyard's own with one deployment: it ends that deploy with a reason, and holds up no other."""

import contextlib
from typing import Any

import pytest
from tests.integration.control.stage import Stage, a_wish, ready_model

from dockyard.domain.deployment import Deployment
from dockyard.domain.lifecycle import DeploymentState, JobStatus
from dockyard.domain.plan import Plan
from dockyard.errors import Reason
from dockyard.loops import reconcile
from dockyard.services.deployments import get_deployment
from dockyard.services.deploys import deploy_model
from dockyard.services.jobs import get_job


class OurFault(Exception):
    """What nobody foresaw."""


async def test_it_ends_the_deploy_and_holds_up_no_other(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = reconcile.plan_rollout

    def plan(deployment: Deployment, *facts: Any) -> Plan:
        if deployment.name == "bad":
            raise OurFault
        return planned(deployment, *facts)

    monkeypatch.setattr(reconcile, "plan_rollout", plan)
    model = await ready_model(stage)
    bad = await deploy_model(stage.ctx, model.model_id, a_wish("bad"), "test")
    good = await deploy_model(stage.ctx, model.model_id, a_wish("good"), "test")
    for _ in range(reconcile.MANY_FAULTS):
        assert (await get_job(stage.ctx, bad.job_id)).status is JobStatus.IN_PROGRESS
        with contextlib.suppress(OurFault):
            await stage.round()
        await stage.quiet()
    assert (await get_job(stage.ctx, good.job_id)).status is JobStatus.SUCCESS
    ended = await get_job(stage.ctx, bad.job_id)
    assert (ended.status, ended.reason) == (JobStatus.FAILED, Reason.INTERNAL)

    monkeypatch.setattr(reconcile, "plan_rollout", planned)
    await stage.settle()
    assert (await get_deployment(stage.ctx, bad.deployment_id or "")).state is DeploymentState.FAILED
