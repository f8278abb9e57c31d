"""kill -9 of the server while it serves: the next one takes over what runs, and replaces what it cannot take over."""

import logging
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psutil
import pytest
from tests.acceptance.clients import Stream
from tests.acceptance.server import Server, body

ENDLESS = "x" * 500
NAMES = ("kept", "gone", "another", "stranger")


@pytest.fixture(scope="module")
def deployments(server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Ids by name; one with two replicas, the others with one."""
    model_id = server.import_echo(tmp_path_factory.mktemp("echo"), step_ms=20)
    jobs = {
        name: server.begin_deploy(model_id, body(name, minReplicas=1 + (name == "kept"), maxReplicas=2))
        for name in NAMES
    }
    return {name: server.wait(job_id)["deploymentId"] for name, job_id in jobs.items()}


@pytest.fixture
def bystander() -> Iterator[psutil.Process]:
    """A process that is none of Dockyard's."""
    process = subprocess.Popen(["sleep", "600"])
    yield psutil.Process(process.pid)
    process.kill()
    process.wait()


def identity(replica: dict[str, Any]) -> tuple[object, ...]:
    return tuple(replica[key] for key in ("replicaId", "pid", "startedOn", "readyOn", "restarts"))


def rewrite(server: Server, deployment_id: str, **columns: object) -> None:
    """Change what the database says of a deployment's living replicas, while no server runs."""
    sets = ", ".join(f"{name} = ?" for name in columns)
    with closing(sqlite3.connect(server.data_dir / "dockyard.db")) as database, database:
        wanted = f"UPDATE replica SET {sets} WHERE deployment_id = ? AND state = 'Ready'"
        assert database.execute(wanted, [*columns.values(), deployment_id]).rowcount == 1


def test_what_runs_is_taken_over_and_the_rest_replaced(
    server: Server, deployments: dict[str, str], bystander: psutil.Process
) -> None:
    before = {name: server.replicas(deployment_id) for name, deployment_id in deployments.items()}
    pids = {name: listed[0]["pid"] for name, listed in before.items()}
    stream = Stream(server, "kept", ENDLESS).after(1)
    server.kill()
    assert "RemoteProtocolError" in (stream.end() or "")  # no half-truth: the reply has no end
    server.kill_replica(pids["gone"])
    rewrite(server, deployments["another"], token="of another replica")
    rewrite(server, deployments["stranger"], pid=bystander.pid, process_started_at=bystander.create_time())

    began = time.monotonic()
    server.start()
    assert server.call("GET", "/readyz").status_code == 200
    assert server.complete("kept", "first") == "first"
    logging.getLogger(__name__).info("a deployment serves %.2f s after the start", time.monotonic() - began)

    assert [identity(replica) for replica in server.replicas(deployments["kept"])] == [
        identity(replica) for replica in before["kept"]
    ]
    for name in ("gone", "another", "stranger"):
        assert server.complete(name, "again") == "again"
        (replica,) = server.replicas(deployments[name])
        assert replica["pid"] not in (pids[name], bystander.pid)
        assert replica["replicaId"] != before[name][0]["replicaId"]
    living = {process.pid for process in server.workers()}
    assert living == {r["pid"] for deployment_id in deployments.values() for r in server.replicas(deployment_id)}
    assert bystander.is_running()
    events = [event["reason"] for event in server.get(f"/deployments/{deployments['gone']}/events")["events"]]
    assert "LOST_WITH_SERVER" in events


def test_a_taken_over_replica_is_supervised_drained_and_ended(server: Server, deployments: dict[str, str]) -> None:
    server.kill()
    server.start()
    before = server.replicas(deployments["kept"])
    stream = Stream(server, "kept", "x" * 100).after(1)
    server.kill_replica(before[0]["pid"])
    server.until(lambda: sum(r["state"] == "Ready" for r in server.replicas(deployments["kept"])) == 2)
    assert stream.whole() == "x" * 100
    stream = Stream(server, "kept", "y" * 100).after(1)
    model_id = server.get(f"/deployments/{deployments['kept']}")["modelId"]
    job = server.post(f"/models/{model_id}/undeploy?name=kept")
    assert stream.whole() == "y" * 100
    server.wait(job["dockStatusId"])
    assert server.replicas(deployments["kept"]) == []
    assert before[1]["pid"] not in {process.pid for process in server.workers()}
