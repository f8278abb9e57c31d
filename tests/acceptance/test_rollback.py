"""A rollback under load: as quick as a cold start where the artifact is cached, and refused where it makes no sense."""

from typing import Any

import pytest
from tests.acceptance.clients import Askers
from tests.acceptance.server import Server, body

DATE = "date: monday, march 3, 2014"
COLD_START = ["VALIDATING", "PROVISIONING", "LOADING", "WARMING_UP", "ROUTING", "DONE"]


@pytest.fixture(scope="module")
def t5(server: Server) -> str:
    return server.import_model("t5-date")


def phases(status: dict[str, Any]) -> list[str]:
    return [line["phase"] for line in status["statusLogs"] if line["phase"] != "QUEUED"]


def refusal(server: Server, deployment_id: str, version: int) -> tuple[int, str]:
    reply = server.call("POST", f"/deployments/{deployment_id}/rollback", json={"version": version})
    (error,) = reply.json()["errors"]
    assert error["msg"]
    return reply.status_code, error["reason"]


def test_a_rollback_is_a_cold_start_of_the_old_parameters(server: Server, t5: str) -> None:
    deployment_id = server.deploy(t5, body("back", "ctranslate2", maxBatchSize=3))["deploymentId"]
    second = server.deploy(t5, body("back", "ctranslate2", "int8_float16", maxBatchSize=5))
    assert "OPTIMIZING" in phases(second)
    with Askers(server, "back", DATE, 2, temperature=0) as askers:
        path = f"/deployments/{deployment_id}/rollback"
        ended = server.wait(server.post(path, {"version": 1})["dockStatusId"])
        forward = server.wait(server.post(path, {"version": 2})["dockStatusId"])
    assert phases(ended) == phases(forward) == COLD_START
    assert (ended["deploymentVersion"], forward["deploymentVersion"]) == (3, 4)
    assert (ended["response"]["computeType"], forward["response"]["computeType"]) == ("float32", "int8_float32")
    assert askers.errors == []
    assert {answer.text for answer in askers.answers} == {"2014-03-03"}
    versions = server.versions(deployment_id)
    assert [versions[number]["versionName"] for number in range(1, 5)] == ["back", "back_v1", "back_v2", "back_v3"]
    batches = [versions[number]["parameters"]["scalingParameters"]["maxBatchSize"] for number in range(1, 5)]
    assert batches == [3, 5, 3, 5]


def test_a_rollback_that_makes_no_sense_is_refused(server: Server, t5: str) -> None:
    deployment_id = server.deploy(t5, body("still", "ctranslate2"))["deploymentId"]
    job_id = server.begin_deploy(t5, body("still", "ctranslate2"))
    assert refusal(server, deployment_id, 1) == (409, "JOB_IN_PROGRESS")
    server.post(f"/dock-status/{job_id}/cancel")
    server.wait(job_id, expect="FAILED")
    assert refusal(server, deployment_id, 1) == (409, "VERSION_SERVES")
    assert refusal(server, deployment_id, 2) == (409, "VERSION_NEVER_SERVED")
    assert refusal(server, deployment_id, 3) == (404, "NOT_FOUND")
    assert server.complete("still", DATE, temperature=0) == "2014-03-03"
    server.wait(server.post(f"/models/{t5}/undeploy?name=still")["dockStatusId"])
    assert refusal(server, deployment_id, 1) == (409, "NOT_DEPLOYED")
