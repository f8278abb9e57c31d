"""Whose turn it is to load."""

import asyncio
import os
from pathlib import Path

import pytest

from dockyard.worker import turns
from dockyard.worker.turns import one_turn


async def test_so_many_at_once_and_the_next_when_one_is_done(tmp_path: Path) -> None:
    order: list[str] = []
    two_load = asyncio.Event()

    async def load(name: str, done: asyncio.Event) -> None:
        async with one_turn(tmp_path, 2):
            order.append(f"{name} loads")
            if len(order) == 2:
                two_load.set()
            await done.wait()
            order.append(f"{name} is ready")

    events = [asyncio.Event() for _ in range(3)]
    tasks = [asyncio.create_task(load(name, event)) for name, event in zip("abc", events, strict=True)]
    await two_load.wait()
    for event in events:
        event.set()
    await asyncio.gather(*tasks)
    assert order[:2] == ["a loads", "b loads"]
    assert order.index("c loads") > min(order.index("a is ready"), order.index("b is ready"))


async def test_nobody_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE_S", 0.01)
    async with one_turn(tmp_path, 1), one_turn(tmp_path, 1):
        pass
    async with one_turn(tmp_path, 1):  # the late one has given its turn back
        pass


async def test_no_turns_means_no_wait_and_no_file(tmp_path: Path) -> None:
    async with one_turn(tmp_path, 0), one_turn(tmp_path, 0):
        assert os.listdir(tmp_path) == []


async def test_a_turn_ends_with_what_it_was_for(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with one_turn(tmp_path, 1):
            raise ZeroDivisionError
    async with one_turn(tmp_path, 1):
        pass
