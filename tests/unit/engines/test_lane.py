"""The threads of lanes: one that lasts, or one for each batch."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from dockyard.engines.base import Generation, Row, Sampling
from dockyard.engines.lane import Emit, Lane


@pytest.mark.parametrize("lasting", [True, False])
async def test_a_thread_for_each_batch_ends_with_it(lasting: bool) -> None:
    threads: list[threading.Thread] = []
    done = asyncio.Event()

    def run_batch(rows: Sequence[Row], emit: Emit) -> None:
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
