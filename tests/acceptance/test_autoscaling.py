"""The number of replicas follows the demand within its bounds; every request is answered; each step has its reason."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.server import Server, body, client

STEP_MS = 25
PROMPT = "scale me, please"  # one token a byte: 17 steps with the end of the text, 0.4 s


@pytest.fixture(scope="module")
def slow_echo(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    return server.import_echo(tmp_path_factory.mktemp("slow"), name="slow", step_ms=STEP_MS)


def events(server: Server, deployment_id: str) -> list[dict[str, Any]]:
    """Oldest first."""
    return server.get(f"/deployments/{deployment_id}/events?limit=200")["events"][::-1]


def test_demand_starts_what_it_needs_and_its_end_takes_it_away(server: Server, slow_echo: str) -> None:
    deployed = server.deploy(slow_echo, body("elastic", maxBatchSize=2, maxReplicas=3))
    deployment_id = deployed["deploymentId"]
    counts: set[int] = set()

    with ThreadPoolExecutor(24) as clients:
        answers = [clients.submit(server.complete, "elastic", PROMPT) for _ in range(24)]
        server.until(lambda: counts.add(len(server.replicas(deployment_id))) or 3 in counts)
        assert {answer.result() for answer in answers} == {PROMPT}
    server.until(lambda: len(server.replicas(deployment_id)) == 1)

    assert max(counts) == 3
    told = [event for event in events(server, deployment_id) if event["subject"] == deployment_id]
    rose = [event for event in told if event["reason"] == "DEMAND_ROSE"][-1]
    fell = [event for event in told if event["reason"] == "DEMAND_FELL"][-1]
    assert rose["to"] == "3 replica(s)"
    assert "waiting" in rose["message"]
    assert fell["to"] == "1 replica(s)"
    left = [event for event in events(server, deployment_id) if event["reason"] == "SCALED_DOWN"]
    assert {event["to"] for event in left} == {"Draining"}


def test_a_request_for_a_first_version_waits_until_it_serves(server: Server, slow_echo: str) -> None:
    job_id = server.begin_deploy(slow_echo, body("early"))
    assert server.complete("early", "hello") == "hello"
    server.wait(job_id)


def test_who_waits_for_a_start_that_fails_is_told_why(server: Server, tmp_path: Path) -> None:
    broken = server.import_echo(tmp_path, name="broken", faults={"10": "load"})
    job_id = server.begin_deploy(broken, body("never"))
    with client() as caller:
        reply = caller.post(
            f"{server.url}/v1/completions", headers=server.headers, json={"model": "never", "prompt": "hello"}
        )
    server.wait(job_id, expect="FAILED")
    assert reply.status_code == 503
    assert "Retry-After" in reply.headers
    assert "'never' could not start" in reply.json()["error"]["message"]
