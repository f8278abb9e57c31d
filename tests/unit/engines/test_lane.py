"""The threads of lanes: one that lasts, or one for each batch."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from dockyard.engines.base import Generation, Row, Sampling
from dockyard.engines.lane import Lane, Outlet


@pytest.mark.parametrize("lasting", [True, False])
async def test_a_thread_for_each_batch_ends_with_it(lasting: bool) -> None:
    threads: list[threading.Thread] = []
    done = asyncio.Event()

    def run_batch(rows: Sequence[Row], emit: Outlet) -> None:
        threads.append(threading.current_thread())

    lane = Lane(run_batch, eos_token_ids=frozenset(), on_done=lambda _, __: done.set(), lasting=lasting)
    for _ in range(2):
        done.clear()
        lane.begin([Generation(Row([1], 1, Sampling()), lambda _: None)])
        await done.wait()
    if lasting:
        assert threads[0] is threads[1]
        assert threads[0].is_alive()
    else:
        assert threads[0] is not threads[1]
        for thread in threads:
            await asyncio.to_thread(thread.join)
    lane.close()
    assert not any(thread.is_alive() for thread in threads)


async def test_the_loop_hears_of_tokens_when_a_step_is_over_and_of_all_at_the_end() -> None:
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    heard: list[list[int]] = []

    def run_batch(rows: Sequence[Row], emit: Outlet) -> None:
        def listen() -> None:
            turned = threading.Event()
            loop.call_soon_threadsafe(loop.call_soon, turned.set)  # behind whoever was woken by tokens
            turned.wait()
            heard.append(came[:])

        for index, token in ((0, 5), (1, 6)):
            emit(index, token)
            listen()
        emit.flush()
        listen()
        emit(0, 7)
        emit.fail(1, RuntimeError("no"))
        listen()

    came: list[int] = []

    async def read(generation: Generation) -> None:
        async for ids in generation:
            came.extend(ids)

    lane = Lane(run_batch, eos_token_ids=frozenset(), on_done=lambda _, __: done.set())
    rows = [Generation(Row([1], 2, Sampling()), lambda _: None) for _ in range(2)]
    reading = [asyncio.create_task(read(generation)) for generation in rows]
    lane.begin(rows)
    await done.wait()
    ends = await asyncio.gather(*reading, return_exceptions=True)
    lane.close()
    assert heard == [[], [], [5, 6], [5, 6]]
    assert came == [5, 6, 7]
    assert [str(end) for end in ends] == ["None", "no"]
