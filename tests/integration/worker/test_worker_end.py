"""How a replica ends: drained, left alone, or killed."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack

import aiohttp
import pytest
from tests.integration.worker.conftest import Start
from tests.integration.worker_rig import text_of


async def test_sigterm_finishes_what_runs_and_refuses_the_rest(
    start_worker: Start, stepping_echo: Callable[[float], str]
) -> None:
    worker = await start_worker(artifact_dir=stepping_echo(20))
    await worker.until_ready()
    watch = worker.watch()
    await anext(watch)
    async with worker.stream(prompt="finish this sentence", max_tokens=100) as events:
        first = await anext(events)
        worker.process.send_signal(signal.SIGTERM)
        async for health in watch:
            if health.phase == "draining":
                break
        status, error = await worker.refused(prompt="too late")
        rest = [event async for event in events]
    assert (status, error.reason) == (503, "DRAINING")
    assert text_of([first, *rest]) == "finish this sentence"
    assert rest[-1].finish == "stop"
    assert [health.phase async for health in watch][-1:] in ([], ["draining"])
    assert await worker.ended() == 0
    assert worker.log[-1].endswith("drained")


async def test_sigterm_while_it_loads(start_worker: Start) -> None:
    worker = await start_worker(engine="transformers", compute_type="float32")
    async for health in worker.watch():
        if health.phase == "importing":
            worker.process.send_signal(signal.SIGTERM)
    assert await worker.ended() == 0


async def test_a_replica_that_nobody_asks_for_ends_itself(start_worker: Start) -> None:
    worker = await start_worker(orphan_after_s=0.3)
    assert await worker.ended() == 0
    assert any("draining" in line and "no server for 0.3 s" in line for line in worker.log)


async def test_a_watch_keeps_it_alive_and_its_end_does_not(
    start_worker: Start, stepping_echo: Callable[[float], str]
) -> None:
    """The generation takes three times as long as an orphan would live."""
    worker = await start_worker(artifact_dir=stepping_echo(50), orphan_after_s=0.3)
    watch = worker.watch()
    async for health in watch:
        if health.phase == "ready":
            break
    events = await worker.generate(prompt="eighteen characters", max_tokens=100)
    assert text_of(events) == "eighteen characters"
    assert (await worker.health()).phase == "ready"
    await watch.aclose()
    assert await worker.ended() == 0


async def test_a_dropped_connection_frees_the_place(start_worker: Start, stepping_echo: Callable[[float], str]) -> None:
    """Four rows of minutes fill the replica; the fifth gets in once one of them is gone."""
    worker = await start_worker(artifact_dir=stepping_echo(100))
    await worker.until_ready()
    async with AsyncExitStack() as others:
        for _ in range(3):
            await anext(await others.enter_async_context(worker.stream(prompt="x" * 4000, max_tokens=4000)))
        async with worker.stream(prompt="x" * 4000, max_tokens=4000) as events:
            await anext(events)
            waits = asyncio.create_task(worker.generate(prompt="in", max_tokens=2))
            async for health in worker.watch():
                if health.waiting == 1:
                    break
        assert text_of(await waits) == "in"
    async for health in worker.watch():
        if health.running == 0:
            break


async def test_a_killed_one_breaks_its_streams(start_worker: Start, stepping_echo: Callable[[float], str]) -> None:
    worker = await start_worker(artifact_dir=stepping_echo(20))
    await worker.until_ready()
    async with worker.stream(prompt="x" * 1000, max_tokens=2000) as events:
        await anext(events)
        worker.process.kill()
        with pytest.raises(aiohttp.ClientError):
            async for _ in events:
                pass
    assert await worker.ended() == -signal.SIGKILL
