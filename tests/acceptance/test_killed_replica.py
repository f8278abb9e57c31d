"""kill -9 of a replica while it loads, and of the converter in mid-write."""

import time
from pathlib import Path

from tests.acceptance.server import Server, body


def test_a_replica_killed_while_it_loads_is_started_again(own_data_dir: Path) -> None:
    with Server(own_data_dir) as server:
        job_id = server.begin_deploy(server.import_model("t5-date"), body("date"))
        for status in server.watch(job_id):
            if status["phase"] in ("PROVISIONING", "LOADING") and (workers := server.workers()):
                workers[0].kill()
                break
        ended = server.wait(job_id)
        assert server.complete("date", "date: monday, march 3, 2014", temperature=0) == "2014-03-03"
        (replica,) = server.replicas(ended["deploymentId"])
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


def test_a_converter_killed_in_mid_write_leaves_nothing_that_is_used(own_data_dir: Path) -> None:
    with Server(own_data_dir) as server:
        model_id = server.import_model("gpt2-kjv")
        job_id = server.begin_deploy(model_id, body("kjv", "ctranslate2", "int8_float16"))
        artifacts = set((own_data_dir / "artifacts").iterdir())
        deadline = time.monotonic() + 60
        while not (converters := [found for found in server.workers() if "dockyard.prepare" in found.cmdline()]):
            assert time.monotonic() < deadline, server.log
        (converter,) = converters
        while not [path for path in (own_data_dir / "scratch").rglob("*") if path.is_file()]:
            assert time.monotonic() < deadline, server.log
            time.sleep(0.001)  # who sleeps is let in at once on a busy machine; it writes for a moment only
        converter.kill()
        ended = server.wait(job_id, expect="FAILED")
        assert ended["reason"] in ("CONVERSION_FAILED", "OUT_OF_MEMORY")
        assert set((own_data_dir / "artifacts").iterdir()) == artifacts
        assert not list((own_data_dir / "scratch").iterdir())
        server.deploy(model_id, body("kjv", "ctranslate2", "int8_float16"))
        assert server.complete("kjv", "In the beginning", temperature=0, max_tokens=4)
