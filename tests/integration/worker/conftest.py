"""Replica processes as a fleet starts them: a bound socket, the spec on standard input, a log file."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from tests.conversion import MODELS, artifact_of
from tests.integration.worker_rig import RunningWorker, spec, start

Start = Callable[..., Awaitable[RunningWorker]]


@pytest.fixture(scope="session")
def converted(converted_models: Path) -> Path:
    """gpt2-kjv as a CTranslate2 artifact."""
    return artifact_of(converted_models, "gpt2-kjv", "float32")


@pytest.fixture
async def start_worker(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts workers, and ends at the end of the test those that still run."""
    started: list[RunningWorker] = []

    async def start_one(**fields: object) -> RunningWorker:
        worker = await start(tmp_path / f"worker-{len(started)}", spec(**fields))
        started.append(worker)
        return worker

    yield start_one
    for worker in started:
        await worker.close()


@pytest.fixture
def stepping_echo(tmp_path: Path) -> Callable[[float], str]:
    """A folder of an echo model that takes so many milliseconds for each token."""

    def folder(step_ms: float) -> str:
        made = tmp_path / f"echo-{step_ms}"
        made.mkdir()
        config = json.loads((MODELS / "echo" / "config.json").read_text())
        (made / "config.json").write_text(json.dumps({**config, "step_ms": step_ms}))
        return str(made)

    return folder
