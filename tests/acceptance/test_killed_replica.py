"""kill -9 of a replica while it loads and while it streams, and of the converter in mid-write."""

import json
import time
from pathlib import Path

import httpx
import psutil
from tests.acceptance.server import Server, body

PROMPT = {"prompt": "In the beginning", "temperature": 0, "max_tokens": 120}


def replicas_of(server: Server, deployment_id: str) -> list[dict[str, object]]:
    return server.get(f"/deployments/{deployment_id}/replicas")["replicas"]


def test_a_replica_killed_while_it_loads_is_started_again(own_data_dir: Path) -> None:
    with Server(own_data_dir) as server:
        job_id = server.begin_deploy(server.import_model("t5-date"), body("date"))
        for status in server.watch(job_id):
            if status["phase"] in ("PROVISIONING", "LOADING") and (workers := server.workers()):
                workers[0].kill()
                break
        ended = server.wait(job_id)
        assert server.complete("date", "date: monday, march 3, 2014", temperature=0) == "2014-03-03"
        (replica,) = replicas_of(server, ended["deploymentId"])
        assert replica["restarts"] == 1
        failure = replica["lastFailure"]
        assert isinstance(failure, dict)
        assert "9" in str(failure["message"])


def test_a_crash_loop_ends_in_failed_with_reason_and_log_tail(own_data_dir: Path) -> None:
    with Server(own_data_dir) as server:
        job_id = server.begin_deploy(server.import_model("t5-date"), body("date"))
        killed: set[int] = set()
        for _ in server.watch(job_id):
            for worker in server.workers():
                if worker.pid not in killed and "dockyard.worker" in worker.cmdline():
                    killed.add(worker.pid)
                    worker.kill()
        ended = server.get(f"/dock-status/{job_id}")
        assert ended["status"] == "FAILED"
        assert ended["reason"] in ("ENGINE_CRASHED", "OUT_OF_MEMORY")
        assert len(killed) == 3
        assert "logTail" in ended
        assert server.get(f"/deployments/{ended['deploymentId']}")["state"] == "Failed"
        assert server.workers() == []


def test_a_stream_goes_on_when_its_replica_is_killed(own_data_dir: Path) -> None:
    with Server(own_data_dir) as server:
        ended = server.deploy(server.import_model("gpt2-kjv"), body("kjv", "ctranslate2"))
        undisturbed = server.complete("kjv", **PROMPT)
        (replica,) = replicas_of(server, ended["deploymentId"])
        text = ""
        with httpx.stream(
            "POST",
            f"{server.url}/v1/completions",
            headers=server.headers,
            json={"model": "kjv", "stream": True, **PROMPT},
            timeout=60,
        ) as stream:
            assert stream.status_code == 200
            for line in stream.iter_lines():
                if not line.startswith("data: {"):
                    continue
                told = json.loads(line.removeprefix("data: "))
                assert "error" not in told, told
                text += told["choices"][0]["text"]
                if len(text) > 20 and psutil.pid_exists(int(str(replica["pid"]))) and "killed" not in replica:
                    psutil.Process(int(str(replica["pid"]))).kill()
                    replica["killed"] = True
        assert "killed" in replica
        assert text == undisturbed


def test_a_converter_killed_in_mid_write_leaves_nothing_that_is_used(own_data_dir: Path) -> None:
    with Server(own_data_dir) as server:
        model_id = server.import_model("gpt2-kjv")
        job_id = server.begin_deploy(model_id, body("kjv", "ctranslate2", "int8_float16"))
        artifacts = set((own_data_dir / "artifacts").iterdir())
        deadline = time.monotonic() + 60
        while not [path for path in (own_data_dir / "scratch").rglob("*") if path.is_file()]:
            assert time.monotonic() < deadline, server.log
        for worker in server.workers():
            worker.kill()
        ended = server.wait(job_id, expect="FAILED")
        assert ended["reason"] in ("CONVERSION_FAILED", "OUT_OF_MEMORY")
        assert set((own_data_dir / "artifacts").iterdir()) == artifacts
        assert not list((own_data_dir / "scratch").iterdir())
        server.deploy(model_id, body("kjv", "ctranslate2", "int8_float16"))
        assert server.complete("kjv", "In the beginning", temperature=0, max_tokens=4)
