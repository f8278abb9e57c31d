"""kill -9 of the server in each phase of a deploy: after the next start the job ends, and nothing is left over."""

from pathlib import Path

import pytest
from tests.acceptance.server import Server, body

PHASES = ["QUEUED", "VALIDATING", "OPTIMIZING", "PROVISIONING", "LOADING", "WARMING_UP", "ROUTING", "DONE"]
# Transformers loads slowly enough to be met in every phase of its start; CTranslate2 has an artifact to make, and later
# a cached one, so that the phases before and after the start are met, too.
STORIES = [
    ("OPTIMIZING", "ctranslate2"),
    ("QUEUED", "ctranslate2"),
    ("VALIDATING", "ctranslate2"),
    ("PROVISIONING", ""),
    ("LOADING", ""),
    ("WARMING_UP", ""),
    ("ROUTING", "ctranslate2"),
]
DATE = "date: monday, march 3, 2014"


@pytest.fixture(scope="module")
def t5(server: Server) -> str:
    return server.import_model("t5-date")


@pytest.mark.parametrize(("phase", "optimization"), STORIES)
def test_a_deploy_survives_the_server(server: Server, t5: str, phase: str, optimization: str) -> None:
    """One server, killed once in each story; whatever the phase was, the job ends well after the next start."""
    quantization = "int8_float16" if optimization else ""  # the one that is not converted yet
    job_id = server.begin_deploy(t5, body(phase, optimization, quantization))
    for status in server.watch(job_id):
        if PHASES.index(phase) <= PHASES.index(status["phase"]):
            break
    server.kill()
    server.start()
    ended = server.wait(job_id)
    assert ended["phase"] == "DONE"
    assert server.complete(phase, DATE, temperature=0) == "2014-03-03"
    (replica,) = server.get(f"/deployments/{ended['deploymentId']}/replicas")["replicas"]
    assert [process.pid for process in server.workers()] == [replica["pid"]]
    assert not list((server.data_dir / "scratch").iterdir())
    server.wait(server.post(f"/models/{t5}/undeploy")["dockStatusId"])
    assert server.workers() == []


def test_an_undeploy_survives_the_server(own_data_dir: Path) -> None:
    with Server(own_data_dir) as server:
        model_id = server.import_model("t5-date")
        server.deploy(model_id, body("date", "ctranslate2"))
        job_id = server.post(f"/models/{model_id}/undeploy")["dockStatusId"]
        server.kill()
        server.start()
        server.wait(job_id)
        assert server.workers() == []


def test_an_import_survives_the_server(bare_data_dir: Path) -> None:
    with Server(bare_data_dir) as server:
        wish = {
            "name": "kjv",
            "modelType": "openSource",
            "source": {"path": str(Path("tests/models/gpt2-kjv").resolve())},
        }
        job_id = server.call("POST", "/models", json=wish).json()["dockStatusId"]
        server.kill()
        server.start()
        ended = server.wait(job_id)
        assert server.get(f"/models/{ended['modelId']}")["state"] == "Ready to Deploy"


def test_sigterm_leaves_no_process_and_no_socket(own_data_dir: Path) -> None:
    with Server(own_data_dir) as server:
        model_id = server.import_model("t5-date")
        server.deploy(model_id, body("date", "ctranslate2"))
        assert server.stop() == 0
        assert server.workers() == []
        assert not list((own_data_dir / "run").glob("*.sock"))
        server.start()  # what is wanted is still wanted
        assert server.complete("date", DATE, temperature=0) == "2014-03-03"
