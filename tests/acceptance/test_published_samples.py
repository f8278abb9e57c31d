"""The two sample requests of the published pages, with only host, key and model id replaced, deploy for real."""

import httpx
from tests.acceptance.server import Server

OPEN_SOURCE = """{
    "name": "Flant5_model",
    "hyperParameters": {
      "temperature": 1,
      "maxTokens": 512,
      "topP": 1,
      "topK": 50,
      "stopSequence": []
    },
    "scalingParameters": {
      "maxBatchSize": 10,
      "minReplicas": 1,
      "maxReplicas": 2,
      "scaleUpDelay": 30,
      "scaleDownDelay": 600
    },
    "deviceType": "g5.xlarge",
    "optimizationInfo": {
      "optimizationType": "",
      "quantizationType": ""
    },
    "isDeployedPreviously": true
  }"""
FINE_TUNE = OPEN_SOURCE.replace("Flant5_model", "gpt2")


def deploy_as_printed(server: Server, model_id: str, model_type: str, text: str) -> httpx.Response:
    return httpx.post(
        f"{server.url}/api/public/models/{model_id}/deploy?modelType={model_type}",
        headers={"x-api-key": server.key, "Content-Type": "application/json"},
        content=text,
        timeout=30,
    )


def test_both_samples_deploy_for_real(server: Server) -> None:
    t5 = server.import_model("t5-date", "openSource")
    gpt2 = server.import_model("gpt2-kjv", "fineTune")
    replies = [
        (t5, deploy_as_printed(server, t5, "openSource", OPEN_SOURCE)),
        (gpt2, deploy_as_printed(server, f":{gpt2}", "fineTune", FINE_TUNE)),  # the page's stray colon
    ]
    for model_id, reply in replies:
        assert reply.status_code == 200, reply.text
        told = reply.json()
        assert told["dock-statusId"] == told["dockStatusId"]
        assert told["dockStatusId"].startswith("ds-")
        assert (told["modelId"], told["jobType"], told["action"], told["status"]) == (
            model_id,
            "MODELS",
            "DEPLOY",
            "IN_PROGRESS",
        )
        assert any("isDeployedPreviously" in warning for warning in told["warnings"])
        ended = server.wait(told["dockStatusId"])
        assert ended["percentageComplete"] == 100
        assert ended["response"]["engine"] == "transformers"
        assert ended["response"]["runsOn"] == "cpu (standing in for g5.xlarge)"
    answer = server.complete("Flant5_model", "date: monday, march 3, 2014", temperature=0)
    assert answer == "2014-03-03"
    assert server.complete("gpt2", "In the beginning", temperature=0, max_tokens=8)
