"""A replica is reachable before it is ready, and tells how far it is."""

from pathlib import Path

import pytest
from tests.conversion import MODELS
from tests.integration.worker.conftest import Start
from tests.integration.worker_rig import TOKEN, gpt2_spec, text_of


async def test_a_watch_sees_every_phase(start_worker: Start, converted: Path) -> None:
    worker = await start_worker(**gpt2_spec(converted))
    phases: list[str] = []
    async for health in worker.watch():
        phases.append(health.phase)
        if health.phase == "ready":
            break
    seen = list(dict.fromkeys(phases))
    assert seen[-3:] == ["loading", "warming_up", "ready"]
    assert seen[0] in ("starting", "importing")
    health = await worker.health()
    assert set(health.timings) == {"importMs", "loadMs", "warmUpMs"}
    assert (health.capacity, health.engine, health.compute_type) == (5, "ctranslate2", "float32")  # 4 and the reserve
    assert (health.can_seed, health.chat_template, health.largest_batch) == (False, False, 1)
    assert [line for line in worker.log if " phase " in line and "phase=ready" in line]


@pytest.mark.parametrize("path", [("GET", "/health"), ("GET", "/watch"), ("POST", "/generate"), ("GET", "/")])
async def test_every_route_wants_the_token(start_worker: Start, path: tuple[str, str]) -> None:
    worker = await start_worker()
    await worker.until_ready()
    assert (await worker.status_of(*path, token=""))[0] == 401
    status, error = await worker.status_of(*path, token=TOKEN[:-1])
    assert (status, error.reason) == (401, "UNKNOWN_KEY")
    assert TOKEN not in error.message


async def test_an_unknown_route(start_worker: Start) -> None:
    worker = await start_worker()
    await worker.until_ready()
    assert (await worker.status_of("GET", "/generate", token=TOKEN))[0] == 404


async def test_transformers_serves_an_encoder_decoder(start_worker: Start) -> None:
    folder = str(MODELS / "t5-date")
    worker = await start_worker(
        engine="transformers",
        artifact_dir=folder,
        compute_type="float32",
        family="encoder_decoder",
        context_length=None,
        eos_token_ids=[1],
        decoder_start_token_id=0,
    )
    assert (await worker.until_ready()).can_seed
    events = await worker.generate(prompt="date: monday, march 3, 2014", max_tokens=30)
    assert text_of(events) == "2014-03-03"
    assert events[-1].finish == "stop"
