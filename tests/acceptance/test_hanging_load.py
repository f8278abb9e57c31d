"""A load without end: the deploy ends, says where it hung and what to change, and the old version serves."""

from pathlib import Path

from tests.acceptance.server import Server, body


def test_a_deploy_that_hangs_ends_with_its_reason_and_the_old_version_serves(
    bare_data_dir: Path, tmp_path: Path
) -> None:
    """The second server adopts both replicas: only so it can be impatient with the one alone that hangs."""
    (tmp_path / "model").mkdir()
    with Server(bare_data_dir) as server:
        model = server.import_echo(tmp_path / "model", faults={"7": "hang"})
        deployment_id = server.deploy(model, body("steady"))["deploymentId"]
        job_id = server.begin_deploy(model, body("steady", maxBatchSize=7))
        server.until(lambda: server.get(f"/dock-status/{job_id}")["phase"] == "LOADING")
        server.kill()

        with Server(bare_data_dir, DOCKYARD_START_TIMEOUT_S="0.5") as impatient:
            ended = impatient.wait(job_id, expect="FAILED")
            assert ended["reason"] == "TIMED_OUT"
            assert "hung while loading (loading weights): it came no step further for 0.5 s" in ended["message"]
            assert "DOCKYARD_START_TIMEOUT_S" in ended["message"]
            assert any("phase=loading" in line for line in ended["logTail"])
            assert impatient.complete("steady", "still here") == "still here"
            impatient.until(lambda: len(impatient.workers()) == 1)
            assert [replica["version"] for replica in impatient.replicas(deployment_id)] == [1]
