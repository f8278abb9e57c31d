"""Deploying over HTTP: both published samples, every reply, every warning."""

from typing import Any

import pytest
from tests.integration.api_rig import BASE, ApiRig, message, open_rig, problems, published_body

from dockyard.api.wire.base import MOST_WARNINGS
from dockyard.domain.lifecycle import ModelState
from dockyard.domain.spec import ModelType
from dockyard.errors import Reason
from dockyard.services.context import Policy

NEVER = (
    "isDeployedPreviously is true, but 'Flant5_model' was never deployed from this model; the server's knowledge counts"
)


@pytest.mark.parametrize(
    ("model_type", "name"), [(ModelType.OPEN_SOURCE, "Flant5_model"), (ModelType.FINE_TUNE, "gpt2")]
)
async def test_the_published_samples_deploy(rig: ApiRig, model_type: ModelType, name: str) -> None:
    model = await rig.ready_model(model_type)
    reply = await rig.deploy(model, f"modelType={model_type}", name=name)
    assert reply.status_code == 200
    told = reply.json()
    assert [warning for warning in told.pop("warnings") if "isDeployedPreviously" not in warning] == []
    assert told == {
        "dock-statusId": told["dockStatusId"],
        "dockStatusId": told["dockStatusId"],
        "modelId": model.model_id,
        "jobType": "MODELS",
        "action": "DEPLOY",
        "status": "IN_PROGRESS",
    }
    assert told["dockStatusId"].startswith("ds-")
    assert rig.wakes


async def test_a_reply_without_warnings_has_no_such_key(rig: ApiRig) -> None:
    reply = await rig.deploy(await rig.ready_model(), isDeployedPreviously=False)
    assert "warnings" not in reply.json()


@pytest.mark.parametrize("form", ["{}", ":{}", "%3A{}"])
async def test_the_stray_colon_of_the_pages_is_accepted(rig: ApiRig, form: str) -> None:
    model = await rig.ready_model()
    reply = await rig.deploy(form.format(model.model_id))
    assert reply.status_code == 200
    assert reply.json()["modelId"] == model.model_id
    assert (await rig.client.get(f"{BASE}/models/{form.format(model.model_id)}")).status_code == 200


@pytest.mark.parametrize("spelling", ["isDeployedPreviously", "isDeployedPreviouly"])
async def test_both_spellings_are_read(rig: ApiRig, spelling: str) -> None:
    model = await rig.ready_model()
    body = published_body()
    del body["isDeployedPreviously"]
    reply = await rig.client.post(
        f"{BASE}/models/{model.model_id}/deploy?modelType=openSource", json={**body, spelling: True}
    )
    assert reply.json()["warnings"] == [NEVER]


async def test_unknown_fields_are_warnings_in_the_reply_and_on_the_job(rig: ApiRig) -> None:
    model = await rig.ready_model()
    hyper = {**published_body()["hyperParameters"], "temprature": 1}
    reply = await rig.deploy(
        model,
        isDeployedPreviously=False,
        hyperParameters=hyper,
        maxtokens=3,
        minReplicas=2,
        zzz={"temperature": [1]},
    )
    expected = [
        "unknown field 'maxtokens' was ignored; did you mean 'hyperParameters.maxTokens'?",
        "unknown field 'minReplicas' was ignored; did you mean 'scalingParameters.minReplicas'?",
        "unknown field 'zzz' was ignored",
        "unknown field 'hyperParameters.temprature' was ignored; did you mean 'temperature'?",
    ]
    assert reply.json()["warnings"] == expected
    status = await rig.client.get(f"{BASE}/dock-status/{reply.json()['dockStatusId']}")
    assert status.json()["warnings"] == expected


async def test_unknown_parameters_are_warnings_too(rig: ApiRig) -> None:
    model = await rig.ready_model()
    reply = await rig.deploy(model, "modelType=openSource&dryrun=true&x=1", isDeployedPreviously=False)
    expected = ["unknown parameter 'dryrun' was ignored; did you mean 'dryRun'?", "unknown parameter 'x' was ignored"]
    assert reply.json()["warnings"] == expected
    await rig.deployed(model, "Flan T5")
    reply = await rig.client.post(f"{BASE}/models/{model.model_id}/undeploy?nmae=other&name=Flan%20T5")
    assert reply.json()["warnings"] == ["unknown parameter 'nmae' was ignored; did you mean 'name'?"]


async def test_very_many_unknown_fields_are_counted(rig: ApiRig) -> None:
    unknown: dict[str, Any] = {f"?{n}": n for n in range(500)}
    reply = await rig.deploy(await rig.ready_model(), "modelType=openSource", isDeployedPreviously=False, **unknown)
    warnings = reply.json()["warnings"]
    assert len(warnings) == MOST_WARNINGS + 1
    assert warnings[-1] == f"{500 - MOST_WARNINGS} more unknown fields were ignored"


async def test_a_dry_run_replies_with_the_plan_and_starts_nothing(rig: ApiRig) -> None:
    model = await rig.ready_model()
    scaling = {"minReplicas": 3, "scaleUpDelay": None}
    reply = await rig.deploy(
        model,
        "modelType=openSource&dryRun=true",
        isDeployedPreviously=None,
        scalingParameters=scaling,
        optimizationInfo={"optimizationType": "ctranslate2", "quantizationType": "int8_float16"},
    )
    assert reply.status_code == 200
    plan: dict[str, Any] = reply.json()
    memory = plan.pop("memory")
    assert memory["deviceBytes"] == memory["gpuBytes"] == 22888 << 20
    parts = ("weightsBytes", "cacheBytes", "workBytes", "overheadBytes")
    assert memory["bytesEach"] == memory["totalBytes"] == sum(memory[part] for part in parts)
    assert memory["contextLength"] == 256
    assert memory["hostTotalBytes"] > 0
    assert plan == {
        "dryRun": True,
        "modelId": model.model_id,
        "version": 1,
        "versionName": "Flant5_model",
        "engine": "ctranslate2",
        "computeType": "int8_float32",
        "runsOn": "cpu (standing in for g5.xlarge)",
        "deviceType": "g5.xlarge",
        "tensorParallel": 1,
        "artifactCached": True,
        "estimatedHourlyCost": {"currency": "USD", "min": 3.018, "max": 3.018},
        "parameters": {
            "hyperParameters": {"temperature": 1, "maxTokens": 512, "topP": 1, "topK": 50, "stopSequence": []},
            "scalingParameters": {
                "maxBatchSize": 10,
                "minReplicas": 3,
                "maxReplicas": 3,
                "scaleUpDelay": 30,
                "scaleUpDelayUnit": "ms",
                "scaleDownDelay": 600,
                "scaleDownDelayUnit": "ms",
            },
            "deviceType": "g5.xlarge",
            "optimizationInfo": {"optimizationType": "ctranslate2", "quantizationType": "int8_float16"},
        },
        "warnings": [],
    }
    assert (await rig.client.get(f"{BASE}/dock-status")).json()["total"] == 0
    assert not rig.wakes


async def test_the_delays_are_read_in_the_servers_unit_and_shown_in_ms(tmp_path: Any) -> None:
    async with open_rig(tmp_path, policy=Policy(delay_unit_ms=1000)) as rig:
        reply = await rig.deploy(await rig.ready_model(), "modelType=openSource&dryRun=true")
        scaling = reply.json()["parameters"]["scalingParameters"]
        assert (scaling["scaleUpDelay"], scaling["scaleUpDelayUnit"]) == (30_000, "ms")
        assert (scaling["scaleDownDelay"], scaling["scaleDownDelayUnit"]) == (600_000, "ms")


async def test_a_redeploy_is_version_2_and_its_name_follows_the_rule(rig: ApiRig) -> None:
    model = await rig.ready_model()
    await rig.deployed(model, "Flan T5")
    plan = (await rig.deploy(model, "modelType=openSource&dryRun=true", name="Flan T5")).json()
    assert (plan["version"], plan["versionName"], plan["warnings"]) == (2, "Flan T5_v1", [])


async def test_what_the_model_forbids_is_told_with_its_reason(rig: ApiRig) -> None:
    model = await rig.ready_model()
    optimization = {"optimizationType": "vllm"}
    reply = await rig.deploy(model, "modelType=fineTune", optimizationInfo=optimization)
    assert reply.status_code == 400
    assert problems(reply) == [
        ("modelType", "MODEL_TYPE_MISMATCH"),
        ("optimizationInfo.optimizationType", "ENGINE_NOT_INSTALLED"),
    ]


async def test_an_unknown_model_and_one_that_is_not_ready(rig: ApiRig) -> None:
    reply = await rig.deploy("cm-0")
    assert (reply.status_code, problems(reply)) == (404, [(None, "NOT_FOUND")])
    failed = await rig.ready_model(state=ModelState.FAILED, reason=Reason.PICKLE_REFUSED, message="a pickle")
    reply = await rig.deploy(failed)
    assert (reply.status_code, problems(reply)) == (409, [(None, "MODEL_NOT_READY")])
    assert "PICKLE_REFUSED" in message(reply)


async def test_a_second_deploy_at_once_conflicts(rig: ApiRig) -> None:
    model = await rig.ready_model()
    assert (await rig.deploy(model)).status_code == 200
    reply = await rig.deploy(model)
    assert (reply.status_code, problems(reply)) == (409, [("name", "JOB_IN_PROGRESS")])


async def test_an_undeploy_in_progress_is_waited_for(rig: ApiRig) -> None:
    """It cannot be cancelled, so nobody is told to."""
    model = await rig.ready_model()
    await rig.deployed(model, "Flan T5")
    assert (await rig.client.post(f"{BASE}/models/{model.model_id}/undeploy")).status_code == 200
    reply = await rig.deploy(model, name="Flan T5")
    assert (reply.status_code, problems(reply)) == (409, [("name", "JOB_IN_PROGRESS")])
    assert message(reply).endswith("in progress; wait for its end")


async def test_undeploy(rig: ApiRig) -> None:
    model = await rig.ready_model()
    url = f"{BASE}/models/:{model.model_id}/undeploy"
    reply = await rig.client.post(url)
    assert (reply.status_code, problems(reply)) == (409, [(None, "NOT_DEPLOYED")])
    _, version = await rig.deployed(model)
    reply = await rig.client.post(url, params={"name": "another"})
    assert (reply.status_code, problems(reply)) == (409, [(None, "NOT_DEPLOYED")])
    reply = await rig.client.post(url, params={"name": "Flan T5"})
    assert reply.status_code == 200
    assert reply.json().keys() == {"dock-statusId", "dockStatusId", "modelId", "jobType", "action", "status"}
    assert reply.json()["action"] == "UNDEPLOY"
    assert rig.router.withdrawn == [version.deployment_id]
