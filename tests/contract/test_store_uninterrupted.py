"""Work that a cancellation must not cut in two."""

import asyncio

import pytest

from dockyard.store.uninterrupted import uninterrupted


async def test_the_result_and_the_error_of_the_work_come_through() -> None:
    async def fail() -> None:
        raise KeyError("of the work")

    assert await uninterrupted(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(KeyError, match="of the work"):
        await uninterrupted(fail())


@pytest.mark.parametrize("error", [None, KeyError("of the work")])
async def test_a_caller_that_is_cancelled_twice_still_waits_for_the_end(error: Exception | None) -> None:
    go_on, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await go_on.wait()
        ended.set()
        if error is not None:
            raise error

    caller = asyncio.create_task(uninterrupted(work()))
    for _ in range(2):
        await asyncio.sleep(0)
        caller.cancel()
    await asyncio.sleep(0)
    assert not caller.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended.is_set()
