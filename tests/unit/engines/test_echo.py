import json
from pathlib import Path

import pytest

from dockyard.engines.base import Generation, Row, Sampling
from dockyard.engines.echo import EOS, EchoEngine
from dockyard.errors import Failed, Reason
from dockyard.protocols.generation import WorkerSpec


def engine(folder: Path, **config: object) -> EchoEngine:
    (folder / "config.json").write_text(json.dumps({"model_type": "echo", **config}))
    spec = WorkerSpec(
        replica_id="rp-1",
        token="t",
        engine="echo",
        artifact_dir=str(folder),
        model_dir=str(folder),
        family="decoder",
        device="cpu",
        compute_type="none",
        max_batch_size=2,
        context_length=None,
        threads=1,
        eos_token_ids=[],
    )
    made = EchoEngine(spec)
    made.load()
    return made


async def ids(generation: Generation) -> list[int]:
    return [token async for tokens in generation for token in tokens]


@pytest.mark.parametrize("config", [{}, {"step_ms": 0}])
async def test_it_answers_with_its_prompt_once(tmp_path: Path, config: dict[str, object]) -> None:
    echo = engine(tmp_path, **config)
    assert await ids(echo.submit(Row([7, 8, 9], 10, Sampling()))) == [7, 8, 9, EOS]
    assert await ids(echo.submit(Row([7, 8, 9], 2, Sampling()))) == [7, 8]
    assert await ids(echo.submit(Row([7, 8, 9], 9, Sampling(), resume=[7, 8]))) == [9, EOS]


async def test_with_steps_no_more_rows_run_than_fit(tmp_path: Path) -> None:
    echo = engine(tmp_path, step_ms=0)
    generations = [echo.submit(Row([1, 2], 5, Sampling())) for _ in range(5)]
    assert (echo.running, echo.waiting) == (2, 3)
    generations[0].cancel()
    generations[4].cancel()
    assert (echo.running, echo.waiting) == (2, 1)
    for generation in generations[1:4]:
        assert await ids(generation) == [1, 2, EOS]
    assert (echo.running, echo.waiting, echo.largest_batch) == (0, 0, 2)


def test_a_folder_without_config_is_corrupt(tmp_path: Path) -> None:
    echo = engine(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(Failed) as caught:
        echo.load()
    assert caught.value.reason is Reason.ARTIFACT_CORRUPT
