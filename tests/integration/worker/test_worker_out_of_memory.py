"""While a replica starts it is the first that the kernel takes when memory runs out, not the one that serves."""

import json
from pathlib import Path

from tests.conversion import MODELS
from tests.integration.worker.conftest import Start
from tests.integration.worker_rig import RunningWorker

from dockyard.oom_score import GOES_FIRST_BY

OWN = int(Path("/proc/self/oom_score_adj").read_text())


def score(worker: RunningWorker) -> int:
    return int(Path("/proc", str(worker.process.pid), "oom_score_adj").read_text())


async def test_a_replica_that_loads_goes_before_one_that_serves(start_worker: Start, tmp_path: Path) -> None:
    folder = tmp_path / "hangs"
    folder.mkdir()
    config = json.loads((MODELS / "echo" / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "faults": {"4": "hang"}}))
    serving, loading = await start_worker(), await start_worker(artifact_dir=str(folder))
    await serving.until_ready()
    async for health in loading.watch():
        if health.phase == "loading":
            break
    assert score(loading) == min(1000, OWN + GOES_FIRST_BY)
    assert score(serving) == OWN
