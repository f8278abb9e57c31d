"""What is read and changed beside deploys: models, dock status, deployments and what belongs to them, devices."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.api_rig import BASE, CARD, ApiRig, message, open_rig, problems

from dockyard.domain.access import Scope
from dockyard.domain.card import Dimensions
from dockyard.domain.devices import GIB
from dockyard.domain.gpus import HostGpu
from dockyard.domain.lifecycle import ReplicaState
from dockyard.services.context import Policy


async def test_importing_a_model(rig: ApiRig, tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    body = {"name": "Flan T5", "modelType": "fineTune", "source": {"path": str(tmp_path), "revison": "x"}}
    reply = await rig.client.post(f"{BASE}/models", json=body)
    assert reply.status_code == 201
    told = reply.json()
    warning = "unknown field 'source.revison' was ignored; did you mean 'revision'?"
    assert told == {
        "dock-statusId": told["dockStatusId"],
        "dockStatusId": told["dockStatusId"],
        "modelId": told["modelId"],
        "jobType": "MODELS",
        "action": "IMPORT",
        "status": "IN_PROGRESS",
        "warnings": [warning],
    }
    status = (await rig.client.get(f"{BASE}/dock-status/{told['dockStatusId']}")).json()
    assert status["warnings"] == [warning]
    model = (await rig.client.get(f"{BASE}/models/{told['modelId']}")).json()
    assert (model["state"], model["card"], model["source"]) == ("Importing", None, {"path": str(tmp_path)})
    reply = await rig.client.delete(f"{BASE}/models/{told['modelId']}")
    assert (reply.status_code, problems(reply)) == (409, [(None, "JOB_IN_PROGRESS")])


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (None, ("source", "WRONG_TYPE")),
        ({}, ("source", "MISSING_FIELD")),
        ({"path": None}, ("source", "MISSING_FIELD")),
        ({"huggingFace": "org/repo", "path": "/tmp"}, ("source", "BAD_FORMAT")),
        ({"path": "/tmp", "revision": "main"}, ("source", "BAD_FORMAT")),
        ({"path": "/tmp", "file": "m.gguf"}, ("source", "BAD_FORMAT")),
        ({"huggingFace": 1}, ("source.huggingFace", "WRONG_TYPE")),
        ({"huggingFace": "repo"}, ("source.huggingFace", "BAD_FORMAT")),
        ({"huggingFace": "a/b/c"}, ("source.huggingFace", "BAD_FORMAT")),
        ({"huggingFace": "../etc"}, ("source.huggingFace", "BAD_FORMAT")),
        ({"huggingFace": "org/.."}, ("source.huggingFace", "BAD_FORMAT")),
        ({"huggingFace": "org/re..po"}, ("source.huggingFace", "BAD_FORMAT")),
        ({"huggingFace": "org/repo\n"}, ("source.huggingFace", "BAD_FORMAT")),
        ({"huggingFace": "org/répo"}, ("source.huggingFace", "BAD_FORMAT")),
        ({"huggingFace": "org/" + "x" * 97}, ("source.huggingFace", "BAD_FORMAT")),
        ({"huggingFace": "x" * 300}, ("source.huggingFace", "OUT_OF_RANGE")),
        ({"huggingFace": "org/repo", "revision": ""}, ("source.revision", "OUT_OF_RANGE")),
        ({"huggingFace": "org/repo", "revision": "../main"}, ("source.revision", "BAD_FORMAT")),
        ({"huggingFace": "org/repo", "revision": "a/../b"}, ("source.revision", "BAD_FORMAT")),
        ({"huggingFace": "org/repo", "revision": "a b?c"}, ("source.revision", "BAD_FORMAT")),
        ({"huggingFace": "org/repo", "revision": "x" * 257}, ("source.revision", "OUT_OF_RANGE")),
        ({"huggingFace": "org/repo", "file": "sub/m.gguf"}, ("source.file", "BAD_FORMAT")),
        ({"huggingFace": "org/repo", "file": "model.bin"}, ("source.file", "BAD_FORMAT")),
        ({"path": "tmp"}, ("source.path", "BAD_FORMAT")),
        ({"path": "/no/such/thing"}, ("source.path", "PATH_NOT_FOUND")),
        ({"path": "/" + "x" * 4000}, ("source.path", "PATH_NOT_FOUND")),
        ({"path": "/" + "x" * 5000}, ("source.path", "OUT_OF_RANGE")),
        ({"path": "/tmp\0"}, ("source.path", "BAD_FORMAT")),
        ({"path": 1}, ("source.path", "WRONG_TYPE")),
    ],
)
async def test_bad_sources(rig: ApiRig, source: object, problem: tuple[str, str]) -> None:
    reply = await rig.client.post(f"{BASE}/models", json={"name": "a", "modelType": "fineTune", "source": source})
    assert (reply.status_code, problems(reply)) == (400, [problem])


@pytest.mark.parametrize(
    "source",
    [
        {"huggingFace": "HuggingFaceTB/SmolLM2-135M-Instruct"},
        {"huggingFace": "01-ai/Yi_1.5", "revision": "refs/pr/1"},
        {"huggingFace": "o/r", "revision": "0123456789abcdef0123456789abcdef01234567", "file": "r-Q4_K.gguf"},
    ],
)
async def test_importing_from_the_hub(rig: ApiRig, source: dict[str, str]) -> None:
    body = {"name": "a", "modelType": "openSource", "source": source}
    reply = await rig.client.post(f"{BASE}/models", json=body)
    assert reply.status_code == 201
    model = (await rig.client.get(f"{BASE}/models/{reply.json()['modelId']}")).json()
    assert (model["state"], model["source"]) == ("Importing", source)


async def test_an_import_from_outside_the_roots_and_of_an_unknown_base(tmp_path: Path) -> None:
    async with open_rig(tmp_path, policy=Policy(import_roots=(tmp_path / "models",))) as rig:
        body = {"name": "a", "modelType": "fineTune", "source": {"path": str(tmp_path)}}
        reply = await rig.client.post(f"{BASE}/models", json=body)
        assert (reply.status_code, problems(reply)) == (400, [("source.path", "PATH_NOT_ALLOWED")])
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / "config.json").touch()
        inside = {**body, "source": {"path": str(tmp_path / "models")}, "baseModelId": "cm-0"}
        reply = await rig.client.post(f"{BASE}/models", json=inside)
        assert (reply.status_code, problems(reply)) == (404, [("baseModelId", "NOT_FOUND")])


async def test_a_path_that_holds_no_model_is_refused_before_anything_is_written_down(
    rig: ApiRig, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "model").mkdir()
    for name in ("model/config.json", "notes.txt", "m.tar"):
        (tmp_path / name).write_text("{}")
    os.mkfifo(tmp_path / "pipe")
    for name, reason, told in (
        ("empty", "CONFIG_MISSING", "name the model's own folder"),
        ("model/config.json", "SOURCE_NOT_SUPPORTED", "name the folder that it lies in"),
        ("notes.txt", "SOURCE_NOT_SUPPORTED", "name a model's folder, or a .gguf file"),
        ("m.tar", "SOURCE_NOT_SUPPORTED", "send it in chunks"),
        ("pipe", "SOURCE_NOT_SUPPORTED", "neither a folder nor a file"),
    ):
        body = {"name": "a", "modelType": "openSource", "source": {"path": str(tmp_path / name)}}
        reply = await rig.client.post(f"{BASE}/models", json=body)
        assert (reply.status_code, problems(reply)) == (400, [("source.path", reason)])
        assert told in message(reply)
    assert (await rig.client.get(f"{BASE}/models")).json()["total"] == 0


async def test_a_model_reads_as_it_was_named_whatever_the_servers_links_lead_to(rig: ApiRig, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "config.json").touch()
    (tmp_path / "model").symlink_to(tmp_path / "secret")
    body = {"name": "a", "modelType": "fineTune", "source": {"path": str(tmp_path / "model")}}
    model_id = (await rig.client.post(f"{BASE}/models", json=body)).json()["modelId"]
    for url in (f"{BASE}/models/{model_id}", f"{BASE}/models"):
        reply = await rig.client.get(url)
        assert "secret" not in reply.text
        assert str(tmp_path / "model") in reply.text


async def test_models(rig: ApiRig) -> None:
    models = [await rig.ready_model(name=name) for name in ("first", "second", "third")]
    listed = (await rig.client.get(f"{BASE}/models", params={"limit": 2})).json()
    assert [model["name"] for model in listed["models"]] == ["third", "second"]
    assert listed["total"] == 3
    rest = (await rig.client.get(f"{BASE}/models", params={"cursor": listed["nextCursor"]})).json()
    assert [model["name"] for model in rest["models"]] == ["first"]
    assert rest["nextCursor"] is None
    assert (await rig.client.get(f"{BASE}/models", params={"state": "Importing"})).json()["total"] == 0

    shown = (await rig.client.get(f"{BASE}/models/{models[0].model_id}")).json()
    assert shown.keys() == {
        *("modelId", "name", "modelType", "state", "source", "baseModelId", "sizeBytes", "card", "deployConfig"),
        *("reason", "message", "createdOn", "lMod"),
    }
    assert (shown["state"], shown["card"]["architecture"]) == ("Ready to Deploy", "LlamaForCausalLM")

    reply = await rig.client.delete(f"{BASE}/models/{models[0].model_id}")
    assert reply.json() == {"modelId": models[0].model_id, "deleted": True, "freedBytes": 0}
    assert (await rig.client.get(f"{BASE}/models/{models[0].model_id}")).status_code == 404


async def test_a_model_tells_all_that_its_files_told(rig: ApiRig) -> None:
    window = Dimensions(width=8, heads=4, kv_heads=2, head_width=2, inner=32, window=4096, window_layers=1)
    told = replace(CARD, dimensions=window, tokenizer_kind="BPE", tokenizer_size=3, active_parameters=2)
    model = await rig.ready_model(card=replace(told, generation_defaults={"top_p": 0.9}, eos_token_ids=(2, 5)))
    card = (await rig.client.get(f"{BASE}/models/{model.model_id}")).json()["card"]
    assert card.keys() == {
        *("architecture", "family", "parameters", "activeParameters", "weightsBytes", "dtype", "contextLength"),
        *("slidingWindow", "vocabSize", "layers", "tokenizerKind", "tokenizerSize", "chatTemplate"),
        *("generationDefaults", "eosTokenIds", "licence", "adapter"),
    }
    assert (card["slidingWindow"], card["tokenizerKind"], card["activeParameters"]) == (4096, "BPE", 2)
    assert (card["generationDefaults"], card["eosTokenIds"]) == ({"top_p": 0.9}, [2, 5])


async def test_a_deployed_model_stays(rig: ApiRig) -> None:
    model = await rig.ready_model()
    await rig.deployed(model)
    reply = await rig.client.delete(f"{BASE}/models/{model.model_id}")
    assert (reply.status_code, problems(reply)) == (409, [(None, "STILL_DEPLOYED")])


async def test_dock_status(rig: ApiRig) -> None:
    model = await rig.ready_model()
    job, version = await rig.deployed(model)
    status = (await rig.client.get(f"{BASE}/dock-status/{job.job_id}")).json()
    assert status.keys() == {
        *("_id", "dockStatusId", "modelId", "jobType", "action", "status", "percentageComplete", "phase", "message"),
        *("reason", "logTail", "statusLogs", "deploymentId", "deploymentName", "deploymentVersion", "warnings"),
        *("response", "createdOn", "lMod"),
    }
    assert (status["_id"], status["dockStatusId"]) == (job.job_id, job.job_id)
    assert (status["status"], status["percentageComplete"], status["phase"]) == ("SUCCESS", 100, "DONE")
    assert (status["deploymentId"], status["deploymentVersion"]) == (version.deployment_id, 1)
    assert status["statusLogs"][0].keys() == {"phase", "status", "startedOn", "finishedOn", "message"}
    assert (await rig.client.get(f"{BASE}/dock-status/ds-0")).status_code == 404

    reply = await rig.client.post(f"{BASE}/dock-status/{job.job_id}/cancel")
    assert (reply.status_code, problems(reply)) == (409, [(None, "JOB_ENDED")])
    running = (await rig.deploy(model, name="Flan T5")).json()["dockStatusId"]
    importer = {"x-api-key": await rig.key_with([Scope.IMPORT, Scope.VIEW])}
    reply = await rig.client.post(f"{BASE}/dock-status/{running}/cancel", headers=importer)
    assert (reply.status_code, problems(reply)) == (403, [(None, "MISSING_SCOPE")])
    for _ in range(2):
        reply = await rig.client.post(f"{BASE}/dock-status/{running}/cancel")
        assert (reply.status_code, reply.json()["status"]) == (200, "IN_PROGRESS")

    async def listed(**params: str) -> list[str]:
        found = (await rig.client.get(f"{BASE}/dock-status", params=params)).json()
        assert found["total"] == len(found["dockStatuses"])
        return [status["dockStatusId"] for status in found["dockStatuses"]]

    assert await listed() == [running, job.job_id]
    assert await listed(status="SUCCESS", modelId=model.model_id) == [job.job_id]
    assert await listed(modelId="cm-0") == []
    assert problems(await rig.client.get(f"{BASE}/dock-status?status=DONE")) == [("status", "NOT_IN_ENUM")]


async def test_a_deployment_and_its_versions(rig: ApiRig) -> None:
    model = await rig.ready_model()
    _, version = await rig.deployed(model)
    url = f"{BASE}/deployments/{version.deployment_id}"
    deployment = (await rig.client.get(url)).json()
    assert (deployment["name"], deployment["state"], deployment["modelId"]) == ("Flan T5", "Deployed", model.model_id)
    assert (deployment["endpointTimeout"], deployment["endpointTimeoutUnit"]) == (60, "s")
    assert (deployment["current"]["version"], deployment["replicas"]) == (1, {"ready": 0, "living": 0})
    assert deployment["current"]["parameters"]["scalingParameters"]["scaleUpDelayUnit"] == "ms"
    for listing in (f"{BASE}/deployments", f"{BASE}/models/:{model.model_id}/deployments"):
        assert (await rig.client.get(listing)).json() == {"deployments": [deployment], "total": 1, "nextCursor": None}
    versions = (await rig.client.get(f"{url}/versions")).json()
    assert versions == {"versions": [deployment["current"]], "total": 1, "nextCursor": None}
    for missing in (
        "deployments/dp-0",
        "models/cm-0/deployments",
        "deployments/dp-0/versions",
        "deployments/dp-0/logs",
    ):
        assert (await rig.client.get(f"{BASE}/{missing}")).status_code == 404


@pytest.mark.parametrize("timeout", [30, 31, 180])
async def test_changing_the_endpoint_timeout(rig: ApiRig, timeout: int) -> None:
    _, version = await rig.deployed(await rig.ready_model())
    url = f"{BASE}/deployments/{version.deployment_id}"
    reply = await rig.client.patch(url, json={"endpointTimeout": timeout, "endpointTimout": 3})
    assert (reply.status_code, reply.json()["endpointTimeout"]) == (200, timeout)
    assert reply.json()["warnings"] == ["unknown field 'endpointTimout' was ignored; did you mean 'endpointTimeout'?"]
    assert (await rig.client.get(url)).json()["endpointTimeout"] == timeout


@pytest.mark.parametrize("timeout", [29, 181, "60", 60.5, None, True])
async def test_bad_endpoint_timeouts(rig: ApiRig, timeout: object) -> None:
    reply = await rig.client.patch(f"{BASE}/deployments/dp-0", json={"endpointTimeout": timeout})
    assert reply.status_code == 400
    assert [field for field, _ in problems(reply)] == ["endpointTimeout"]


async def test_rolling_back(rig: ApiRig) -> None:
    model = await rig.ready_model()
    await rig.deployed(model)
    _, version = await rig.deployed(model)
    url = f"{BASE}/deployments/{version.deployment_id}/rollback"
    reply = await rig.client.post(url, json={"version": 7})
    assert (reply.status_code, problems(reply)) == (404, [("version", "NOT_FOUND")])
    reply = await rig.client.post(url, json={"version": 0})
    assert (reply.status_code, problems(reply)) == (400, [("version", "OUT_OF_RANGE")])
    reply = await rig.client.post(url, json={"version": 2})
    assert (reply.status_code, problems(reply)) == (409, [("version", "VERSION_SERVES")])
    reply = await rig.client.post(url, json={"version": 1})
    assert (reply.status_code, reply.json()["action"]) == (200, "DEPLOY")
    status = (await rig.client.get(f"{BASE}/dock-status/{reply.json()['dockStatusId']}")).json()
    assert status["deploymentVersion"] == 3
    reply = await rig.client.post(url, json={"version": 1})
    assert (reply.status_code, problems(reply)) == (409, [("name", "JOB_IN_PROGRESS")])
    await rig.failed(version.deployment_id, 3)
    reply = await rig.client.post(url, json={"version": 3})
    assert (reply.status_code, problems(reply)) == (409, [("version", "VERSION_NEVER_SERVED")])


async def test_replicas_and_logs(rig: ApiRig) -> None:
    _, version = await rig.deployed(await rig.ready_model())
    timings = {"spawnMs": 3.0, "totalMs": 9.0}
    replica = await rig.with_replica(version, state=ReplicaState.STARTING, pid=17, engine="echo", timings=timings)
    await rig.with_replica(version, state=ReplicaState.STOPPED)
    url = f"{BASE}/deployments/{version.deployment_id}"
    listed = (await rig.client.get(f"{url}/replicas")).json()
    assert listed == {
        "replicas": [
            {
                "replicaId": replica.replica_id,
                "state": "Starting",
                "pid": 17,
                "host": "localhost",
                "engine": "echo",
                "computeType": "",
                "runsOn": "",
                "gpus": [],
                "version": 1,
                "running": 0,
                "waiting": 0,
                "largestBatch": 0,
                "startedOn": None,
                "readyOn": None,
                "timings": {"spawnMs": 3.0, "importMs": None, "loadMs": None, "warmUpMs": None},
                "restarts": 0,
                "lastFailure": None,
            }
        ],
        "total": 1,
        "nextCursor": None,
    }
    rig.fleet.machine.written[replica.replica_id] = ["one", "two", "three"]
    reply = await rig.client.get(f"{url}/logs", params={"lines": 2})
    assert reply.json() == {"logs": [{"replicaId": replica.replica_id, "lines": ["two", "three"]}]}
    assert problems(await rig.client.get(f"{url}/logs?lines=0")) == [("lines", "OUT_OF_RANGE")]


async def test_events(rig: ApiRig) -> None:
    job, version = await rig.deployed(await rig.ready_model())
    listed = (await rig.client.get(f"{BASE}/deployments/{version.deployment_id}/events")).json()
    first = listed["events"][-1]
    assert first.keys() == {"eventId", "at", "subject", "from", "to", "reason", "message", "actor"}
    assert (first["subject"], first["from"], first["to"]) == (job.version_id, None, "Pending")
    assert (first["reason"], first["actor"][:3]) == ("DEPLOY_REQUESTED", "ak-")
    assert listed["events"][0]["to"] == "Deployed"


async def test_devices(rig: ApiRig, tmp_path: Path) -> None:
    listed = (await rig.client.get(f"{BASE}/devices")).json()
    assert listed["total"] == len(listed["devices"]) == 8
    assert listed["devices"][1] == {
        "deviceType": "g5.xlarge",
        "gpus": 1,
        "gpu": "A10G",
        "gpuMemoryMiB": 22888,
        "vcpus": 4,
        "memoryGiB": 16,
        "usdPerHour": 1.006,
        "available": True,
        "runsOn": "cpu (standing in for g5.xlarge)",
        "message": None,
    }
    assert (listed["hostGpus"], listed["gpuDriver"], listed["gpuMessage"]) == ([], None, None)


async def test_the_gpus_of_the_host(rig: ApiRig) -> None:
    free = HostGpu(
        uuid="GPU-1",
        index=0,
        model="NVIDIA A10G",
        total_bytes=24 * GIB,
        free_bytes=20 * GIB,
        others_bytes=3 * GIB,
        capability=(8, 6),
    )
    taken = replace(free, uuid="GPU-2", index=1, replica_id="rp-1", ending=True, awaits="GPU 1: 2 GiB are not free yet")
    lost = replace(free, uuid="GPU-3", index=2, fault="it has fallen off the bus")
    rig.host = replace(rig.host, gpus=(free, taken, lost), gpu_driver="555.42")
    listed = (await rig.client.get(f"{BASE}/devices")).json()
    assert listed["devices"][1]["runsOn"] == "1 × NVIDIA A10G (standing in for g5.xlarge)"
    assert listed["devices"][5]["runsOn"] == "cpu (standing in for g5.12xlarge)"  # two are not four
    assert (listed["gpuDriver"], listed["gpuMessage"]) == ("555.42", None)
    assert listed["hostGpus"][0] == {
        "index": 0,
        "uuid": "GPU-1",
        "model": "NVIDIA A10G",
        "memoryMiB": 24576,
        "freeMiB": 20480,
        "usedByOthersMiB": 3072,
        "computeCapability": "8.6",
        "replicaId": None,
        "state": "free",
        "message": None,
    }
    told = [(gpu["state"], gpu["replicaId"], gpu["message"]) for gpu in listed["hostGpus"][1:]]
    assert told == [
        ("ending", "rp-1", "GPU 1: 2 GiB are not free yet"),
        ("not used", None, "it has fallen off the bus"),
    ]


async def test_an_engine_that_cannot_use_the_gpus_says_so(rig: ApiRig, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = HostGpu(uuid="GPU-1", index=0, model="T4", total_bytes=15 * GIB, free_bytes=15 * GIB, capability=(7, 5))
    rig.host = replace(rig.host, gpus=(gpu,))
    why = "it is a build for CPUs: install another"
    monkeypatch.setattr(rig.preparer, "without_gpus", lambda engine: why if engine == "transformers" else None)
    engines = (await rig.client.get(f"{BASE}/engines")).json()["engines"]
    told = {engine["engine"]: (engine["runsOn"], engine["message"]) for engine in engines if engine["installed"]}
    assert told["transformers"] == ("cpu", why)
    assert told["ctranslate2"] == ("cuda", None)
    reply = await rig.deploy(await rig.ready_model())
    assert problems(reply) == [("optimizationInfo.optimizationType", "ENGINE_CANNOT_USE_GPU")]


async def test_devices_of_a_strict_server(tmp_path: Path) -> None:
    async with open_rig(tmp_path, policy=Policy(strict_devices=True)) as rig:
        device = (await rig.client.get(f"{BASE}/devices")).json()["devices"][0]
        assert (device["available"], device["runsOn"]) == (False, None)
        reply = await rig.deploy(await rig.ready_model())
        assert problems(reply) == [("deviceType", "DEVICE_NOT_AVAILABLE")]
        assert device["message"] == message(reply).replace("g5.xlarge", "g4dn.xlarge")
