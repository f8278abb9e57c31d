"""A redeploy under load: the old version serves until the new one has proven itself, then the new one, and no gap."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.clients import Askers, Stream
from tests.acceptance.server import Server, body

# Each version is told by its default stop sequence: version 1 answers "one", version 2 "one1two" and so on.
PROMPT = "one1two2three3"
SAYS = {1: "one", 2: "one1two", 3: "one1two2three"}
LONG = "The quick brown fox jumps over the lazy dog. " * 9  # 405 tokens, 1.6 s
FAULTS = {"7": "load", "8": "warm_up", "9": "memory"}  # of the echo engine, by maxBatchSize
REASONS = {"load": "ENGINE_FAILED", "warm_up": "ENGINE_CRASHED", "memory": "OUT_OF_MEMORY"}


@pytest.fixture(scope="module")
def echo(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    return server.import_echo(tmp_path_factory.mktemp("echo"), step_ms=4, faults=FAULTS)


def wish(name: str, says: int, **scaling: int) -> dict[str, Any]:
    wanted = body(name, "", "", **scaling)
    return {**wanted, "hyperParameters": {**wanted["hyperParameters"], "stopSequence": [str(says)]}}


def stream(server: Server, name: str, text: str = LONG) -> Stream:
    return Stream(server, name, text, stop=["\x00"])


def assert_switched_in_one_step(askers: Askers, before: str, after: str) -> None:
    """Who asked after anybody had an answer of the new version got one of the new version; all got one of the two."""
    assert askers.errors == []
    assert {answer.text for answer in askers.answers} == {before, after}
    first_new = min(answer.answered_at for answer in askers.answers if answer.text == after)
    assert {answer.text for answer in askers.answers if answer.asked_at > first_new} == {after}


def test_the_old_version_serves_until_the_new_one_has_proven_itself(server: Server, echo: str) -> None:
    first = server.deploy(echo, wish("seam", 1, minReplicas=2))
    old_pids = {replica["pid"] for replica in server.replicas(first["deploymentId"])}
    with Askers(server, "seam", PROMPT, 4) as askers:
        streams = [stream(server, "seam").after(1) for _ in range(6)]
        job_id = server.begin_deploy(echo, wish("seam", 2, minReplicas=2))
        for status in server.watch(job_id):
            assert status["status"] != "FAILED", status
        serving = server.versions(first["deploymentId"])
        assert serving[2]["state"] == "Deployed"
        assert serving[1]["state"] in ("Draining", "Deployed")  # its streams still run
        askers.until(lambda: askers.answers[-1].text == SAYS[2])
        assert [one.whole() for one in streams] == [LONG] * 6
    assert_switched_in_one_step(askers, SAYS[1], SAYS[2])
    passed = {line["phase"]: line for line in server.get(f"/dock-status/{job_id}")["statusLogs"]}
    assert passed["WARMING_UP"]["message"] == "a real generation succeeded"
    server.until(lambda: server.versions(first["deploymentId"])[1]["state"] == "Retired")
    new_pids = {replica["pid"] for replica in server.replicas(first["deploymentId"])}
    assert len(new_pids) == 2
    assert not new_pids & old_pids
    assert not {process.pid for process in server.workers()} & old_pids


def test_versions_that_cannot_start_leave_the_old_ones_alone(server: Server, echo: str) -> None:
    """Refused while it loads, crashed in its first generation, out of memory: three deployments at once."""
    before = {name: server.deploy(echo, wish(name, 1))["deploymentId"] for name in FAULTS.values()}
    replica_of = {name: server.replicas(deployment_id)[0] for name, deployment_id in before.items()}
    with contextlib.ExitStack() as stack:
        askers = {name: stack.enter_context(Askers(server, name, PROMPT, 1)) for name in before}
        streams = {name: stream(server, name).after(1) for name in before}
        jobs = {
            name: server.begin_deploy(echo, wish(name, 2, maxBatchSize=int(batch))) for batch, name in FAULTS.items()
        }
        failed = {name: server.wait(job_id, expect="FAILED") for name, job_id in jobs.items()}
        for one in askers.values():
            one.go_on(2)
    for name, deployment_id in before.items():
        assert failed[name]["reason"] == REASONS[name]
        assert failed[name]["logTail"]
        assert streams[name].whole() == LONG
        assert askers[name].errors == []
        assert {answer.text for answer in askers[name].answers} == {SAYS[1]}
        after = server.versions(deployment_id)
        assert (after[1]["state"], after[2]["state"], after[2]["reason"]) == ("Deployed", "Failed", REASONS[name])
        assert server.get(f"/deployments/{deployment_id}")["state"] == "Deployed"
        (same,) = server.replicas(deployment_id)
        assert [same[key] for key in ("pid", "readyOn", "restarts")] == [
            replica_of[name][key] for key in ("pid", "readyOn", "restarts")
        ]


def test_a_damaged_artifact_fails_the_new_version_only(server: Server, tmp_path: Path) -> None:
    model_id = server.import_echo(tmp_path, step_ms=4, name="damaged")
    deployment_id = server.deploy(model_id, wish("damaged", 1))["deploymentId"]
    (stored,) = (path for path in server.data_dir.glob("artifacts/*/config.json") if "damaged" in path.read_text())
    stored.chmod(0o600)
    stored.write_text(stored.read_text().replace("echo", "ecko", 1))
    with Askers(server, "damaged", PROMPT, 2) as askers:
        running = stream(server, "damaged").after(1)
        failed = server.wait(server.begin_deploy(model_id, wish("damaged", 2)), expect="FAILED")
        assert running.whole() == LONG
    assert (failed["reason"], "config.json" in failed["message"]) == ("ARTIFACT_CORRUPT", True)
    assert askers.errors == []
    assert {answer.text for answer in askers.answers} == {SAYS[1]}
    assert server.versions(deployment_id)[1]["state"] == "Deployed"


def test_a_stream_outlives_the_draining_replica_that_is_killed(server: Server, echo: str) -> None:
    """The old version's streams go on with the new version, from the tokens that they have."""
    deployment_id = server.deploy(echo, wish("killed", 1))["deploymentId"]
    (old,) = server.replicas(deployment_id)
    streams = [stream(server, "killed").after(1) for _ in range(3)]
    server.deploy(echo, wish("killed", 2))
    for one in streams:
        one.after(len(one.text) + 1)
    server.kill_replica(old["pid"])
    assert [one.whole() for one in streams] == [LONG] * 3
    server.until(lambda: server.versions(deployment_id)[1]["state"] == "Retired")


def test_a_cancelled_redeploy_leaves_the_old_one_alone(server: Server, echo: str) -> None:
    deployment_id = server.deploy(echo, wish("cancelled", 1))["deploymentId"]
    with Askers(server, "cancelled", PROMPT, 2) as askers:
        job_id = server.begin_deploy(echo, wish("cancelled", 2, minReplicas=4, maxReplicas=4))
        server.post(f"/dock-status/{job_id}/cancel")
        ended = server.wait(job_id, expect="FAILED")
        server.until(lambda: len(server.replicas(deployment_id)) == 1)
    assert ended["reason"] == "CANCELLED"
    assert askers.errors == []
    assert {answer.text for answer in askers.answers} == {SAYS[1]}
