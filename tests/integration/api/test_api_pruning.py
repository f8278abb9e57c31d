"""Pruning over HTTP, and how a model from an export and an adapter read."""

from dataclasses import replace
from typing import Any

import pytest
from tests.integration.api_rig import BASE, CARD, ApiRig, problems

from dockyard.domain.access import Scope
from dockyard.domain.adapter import AdapterCard
from dockyard.domain.model import Artifact


async def test_a_dry_run_and_a_prune(rig: ApiRig) -> None:
    model = await rig.ready_model()
    artifact = Artifact(
        key="made",
        source_key="weights",
        engine="ctranslate2",
        quantization="int8_float16",
        size_bytes=1,
        created_at=model.created_at,
        last_used_at=model.created_at,
    )
    async with rig.ctx.store.transaction() as tx:
        await tx.artifacts.put(artifact)
    assert (await rig.client.post(f"{BASE}/artifacts/prune")).json() == {
        "dryRun": False,
        "freedBytes": 0,
        "artifacts": [],
    }
    reply = (await rig.client.post(f"{BASE}/artifacts/prune?unusedDays=0&dryRun=true&dryrun=x")).json()
    assert reply["dryRun"] is True
    assert reply["warnings"] == ["unknown parameter 'dryrun' was ignored; did you mean 'dryRun'?"]
    [one] = reply["artifacts"]
    assert one.pop("lastUsedOn").endswith("Z")
    assert one == {
        "artifactKey": "made",
        "cause": "UNUSED",
        "sizeBytes": 0,
        "engine": "ctranslate2",
        "quantization": "int8_float16",
        "models": ["Flan T5"],
    }
    await rig.client.post(f"{BASE}/artifacts/prune?unusedDays=0")
    async with rig.ctx.store.reading() as tx:
        assert [artifact.key for artifact in await tx.artifacts.all()] == ["weights"]


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("unusedDays=-1", ("unusedDays", "OUT_OF_RANGE")),
        ("unusedDays=a", ("unusedDays", "WRONG_TYPE")),
        ("dryRun=1", ("dryRun", "WRONG_TYPE")),
    ],
)
async def test_parameters_that_are_wrong(rig: ApiRig, query: str, problem: tuple[str, str]) -> None:
    reply = await rig.client.post(f"{BASE}/artifacts/prune?{query}")
    assert (reply.status_code, problems(reply)) == (400, [problem])


async def test_it_needs_the_scope_to_delete(rig: ApiRig) -> None:
    key = await rig.key_with(set(Scope) - {Scope.DELETE})
    reply = await rig.client.post(f"{BASE}/artifacts/prune", headers={"x-api-key": key})
    assert reply.status_code == 403


async def test_an_adapter_from_an_export_reads_as_one_and_is_exported_with_its_base(rig: ApiRig) -> None:
    base = await rig.ready_model(name="base")
    config: dict[str, Any] = {"name": "dates", "modelType": "fineTune", "deviceType": "g5.xlarge"}
    adapter = AdapterCard(base_key="weights", rank=4, parameters=10, modules=("q_proj",))
    card = replace(CARD, adapter=adapter, deploy_config=config)
    model = await rig.ready_model(base_model_id=base.model_id, card=card)
    told = (await rig.client.get(f"{BASE}/models/{model.model_id}")).json()
    assert told["card"]["adapter"] == {"rank": 4, "parameters": 10, "modules": ["q_proj"]}
    assert told["deployConfig"] == config
    reply = await rig.client.delete(f"{BASE}/models/{base.model_id}")
    assert (reply.status_code, problems(reply)) == (409, [(None, "BASE_MODEL_IN_USE")])

    job_id = (await rig.client.post(f"{BASE}/models/{model.model_id}/export")).json()["dockStatusId"]
    async with rig.ctx.store.reading() as tx:
        job = await tx.jobs.get(job_id)
    named = {"artifactKey": "weights", "name": "base"}
    assert job.request["deployConfig"] == {**config, "baseModel": named}
    reply = await rig.deploy(model, baseModel=named, isDeployedPreviously=False)
    assert (reply.status_code, reply.json().get("warnings")) == (200, None)
