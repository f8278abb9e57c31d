"""Each published parameter has its effect on the replicas: how many run, how large a batch gets, who drains."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from tests.acceptance.server import Server, body


@pytest.fixture(scope="module")
def t5(server: Server) -> str:
    return server.import_model("t5-date")


@pytest.fixture(scope="module")
def gpt2(server: Server) -> str:
    return server.import_model("gpt2-kjv")


def largest_batch(server: Server, deployment_id: str) -> int:
    (replica,) = server.get(f"/deployments/{deployment_id}/replicas")["replicas"]
    return replica["largestBatch"]


@pytest.mark.parametrize("optimization", ["ctranslate2", ""])
def test_a_batch_is_a_batch(server: Server, gpt2: str, optimization: str) -> None:
    """With maxBatchSize 4 and 16 requests at once the engine never sees more than 4 rows, and does see 4."""
    name = f"batches {optimization or 'none'}"
    ended = server.deploy(gpt2, body(name, optimization, maxBatchSize=4, maxReplicas=1))
    with ThreadPoolExecutor(16) as pool:
        # Long enough that all 16 are there before the first batch ends.
        answers = list(pool.map(lambda _: server.complete(name, "In the", temperature=0, max_tokens=100), range(16)))
    assert len(set(answers)) == 1
    deadline = time.monotonic() + 10
    while (seen := largest_batch(server, ended["deploymentId"])) < 4:  # a replica tells its counts now and then
        assert time.monotonic() < deadline, f"the engine never ran more than {seen} rows"
    assert seen == 4
    server.wait(server.post(f"/models/{gpt2}/undeploy?name={name}")["dockStatusId"])


def test_min_replicas_run_and_undeploy_ends_them(server: Server, t5: str) -> None:
    ended = server.deploy(t5, body("three", "ctranslate2", minReplicas=3, maxReplicas=3))
    replicas = server.get(f"/deployments/{ended['deploymentId']}/replicas")["replicas"]
    assert [replica["state"] for replica in replicas] == ["Ready"] * 3
    assert {process.pid for process in server.workers()} >= {replica["pid"] for replica in replicas}
    done = server.wait(server.post(f"/models/{t5}/undeploy?name=three")["dockStatusId"])
    assert done["action"] == "UNDEPLOY"
    assert server.get(f"/deployments/{ended['deploymentId']}/replicas")["replicas"] == []
    assert not {process.pid for process in server.workers()} & {replica["pid"] for replica in replicas}
    refused = server.call("POST", "/v1/completions", json={"model": "three", "prompt": "x"})
    assert refused.status_code == 404
    again = server.call("POST", f"/models/{t5}/undeploy?name=three")
    assert (again.status_code, again.json()["errors"][0]["reason"]) == (409, "NOT_DEPLOYED")


def test_a_request_beyond_the_ceiling_is_refused_and_an_inference_key_serves_its_deployment_only(
    server: Server, t5: str
) -> None:
    ended = server.deploy(t5, body("keyed", "ctranslate2"))
    other = server.deploy(t5, body("other", "ctranslate2"))
    made = server.call("POST", f"/deployments/{ended['deploymentId']}/keys", json={"name": "app"})
    assert made.status_code == 201
    key = made.json()
    headers = {"Authorization": f"Bearer {key['key']}"}

    def ask(model: str, **options: object) -> httpx.Response:
        wish = {"model": model, "prompt": "date: monday, march 3, 2014", "temperature": 0, **options}
        return httpx.post(f"{server.url}/v1/completions", headers=headers, json=wish, timeout=30)

    assert ask("keyed").json()["choices"][0]["text"] == "2014-03-03"
    assert ask("other").status_code == 403
    beyond = ask("keyed", max_tokens=513)
    assert beyond.status_code == 400
    assert "512" in beyond.json()["error"]["message"]
    assert server.call("DELETE", f"/deployments/{ended['deploymentId']}/keys/{key['keyId']}").status_code in (200, 204)
    assert ask("keyed").status_code == 401
    assert other["status"] == "SUCCESS"
