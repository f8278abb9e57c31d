"""A replica that cannot serve says why: to its watchers, in its last line, by its exit code."""

import shutil
from pathlib import Path

import pytest
from tests.integration.worker.conftest import Start
from tests.integration.worker_rig import gpt2_spec, start


async def last_failure(start_worker: Start, **fields: object) -> tuple[str | None, list[str], int]:
    worker = await start_worker(**fields)
    reason = None
    async for health in worker.watch():
        if health.failure is not None:
            reason = health.failure.reason
    return reason, worker.log, await worker.ended()


@pytest.mark.parametrize("keep_bytes", [0, 100, 8_000_000])
async def test_a_truncated_artifact(start_worker: Start, converted: Path, tmp_path: Path, keep_bytes: int) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(converted, damaged)
    with (damaged / "model.bin").open("r+b") as file:
        file.truncate(keep_bytes)
    reason, log, code = await last_failure(start_worker, **gpt2_spec(damaged))
    assert (reason, code) == ("ARTIFACT_CORRUPT", 3)
    assert "ERROR failed reason=ARTIFACT_CORRUPT" in log[-1]


async def test_an_artifact_without_its_vocabulary(start_worker: Start, converted: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(converted, damaged)
    (damaged / "vocabulary.json").write_text("[")
    assert (await last_failure(start_worker, **gpt2_spec(damaged)))[0] == "ARTIFACT_CORRUPT"


async def test_damaged_weights_in_transformers(start_worker: Start, tmp_path: Path) -> None:
    shutil.copytree(Path(gpt2_spec(tmp_path)["model_dir"]), tmp_path / "damaged")
    with (tmp_path / "damaged" / "model.safetensors").open("r+b") as file:
        file.truncate(8_000_000)
    fields = {**gpt2_spec(tmp_path / "damaged"), "engine": "transformers"}
    reason, log, code = await last_failure(start_worker, **fields)
    assert (reason, code) == ("ARTIFACT_CORRUPT", 3)
    assert "ERROR failed" in log[-1]


async def test_a_damaged_tokenizer(start_worker: Start, converted: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    fields = gpt2_spec(converted, model_dir=str(tmp_path))
    assert (await last_failure(start_worker, **fields))[0] == "TOKENIZER_UNREADABLE"


async def test_an_engine_that_is_not_there(start_worker: Start) -> None:
    assert (await last_failure(start_worker, engine="vllm"))[0] == "ENGINE_NOT_INSTALLED"


async def test_a_precision_that_the_device_lacks(start_worker: Start, converted: Path) -> None:
    fields = gpt2_spec(converted, compute_type="int8_float16")
    reason, log, _ = await last_failure(start_worker, **fields)
    assert reason == "ENGINE_FAILED"
    assert "int8_float16" in log[-1]


async def test_a_spec_that_cannot_be_read(tmp_path: Path) -> None:
    worker = await start(tmp_path / "worker", b'{"replica_id": 1}')
    assert await worker.ended() == 2
    await worker.close()
    assert "reason=BAD_FORMAT" in worker.log[-1]
