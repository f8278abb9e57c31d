"""A dry run as a person reads it."""

from typing import Any

from dockyard.cli.plan import readable_plan

GIB = 1 << 30
PLAN: dict[str, Any] = {
    "dryRun": True,
    "modelId": "cm-1",
    "version": 1,
    "versionName": "smol",
    "engine": "ctranslate2",
    "computeType": "int8_float32",
    "runsOn": "cpu (standing in for g5.xlarge)",
    "deviceType": "g5.xlarge",
    "tensorParallel": 1,
    "memory": {
        "deviceBytes": 22 * GIB,
        "gpuBytes": 22 * GIB,
        "weightsBytes": 140 << 20,
        "cacheBytes": 5 * GIB,
        "workBytes": GIB // 2,
        "overheadBytes": 500 << 20,
        "totalBytes": 11 * GIB // 2,
        "bytesEach": 11 * GIB // 2,
        "contextLength": 8192,
        "hostTotalBytes": 2 * GIB,
    },
    "artifactCached": False,
    "estimatedHourlyCost": {"currency": "USD", "min": 1.006, "max": 2.012},
    "parameters": {
        "hyperParameters": {"temperature": 1.0, "maxTokens": 512, "topP": 0.9, "topK": 50, "stopSequence": ["\n"]},
        "scalingParameters": {
            "maxBatchSize": 10,
            "minReplicas": 1,
            "maxReplicas": 2,
            "scaleUpDelay": 30,
            "scaleDownDelay": 600,
        },
    },
    "warnings": [],
}


def test_a_first_deploy_that_has_to_be_converted() -> None:
    assert readable_plan(PLAN) == {
        "deploys as": "smol (a first deploy)",
        "engine": "ctranslate2, computing in int8_float32",
        "runs on": "cpu (standing in for g5.xlarge)",
        "weights": "to be converted first",
        "context": "8,192 tokens",
        "on g5.xlarge": "5.50 GiB of 22.00 GiB (25%): fits",
        "of which": "weights 140.0 MiB, cache 5.00 GiB, work 512.0 MiB, engine 500.0 MiB",
        "on this host": "2.00 GiB for a replica, where its CPU stands in",
        "replicas": "1 to 2; up after 30 ms, down after 600 ms",
        "batch": "up to 10 requests at once",
        "sampling": "temperature 1, maxTokens 512, topP 0.9, topK 50, stops at '\\n'",
        "cost": "$1.01 an hour with 1, $2.01 with 2, by the provider's list price",
    }


def test_a_redeploy_on_several_gpus() -> None:
    several = {"version": 3, "versionName": "smol_v2", "engine": "vllm", "tensorParallel": 4}
    scaling = {**PLAN["parameters"]["scalingParameters"], "maxReplicas": 1}
    hyper = {**PLAN["parameters"]["hyperParameters"], "stopSequence": []}
    told = readable_plan({**PLAN, **several, "parameters": {"hyperParameters": hyper, "scalingParameters": scaling}})
    assert told["deploys as"] == "smol_v2 (a redeploy, version 3)"
    assert told["on g5.xlarge"] == "5.50 GiB on each of 4 GPUs of 22.00 GiB (25%): fits"
    assert (told["replicas"], told["cost"]) == ("1", "$1.01 an hour, by the provider's list price")
    assert told["sampling"] == "temperature 1, maxTokens 512, topP 0.9, topK 50"
    assert "weights" not in told
