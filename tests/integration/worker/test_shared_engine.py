"""Replicas that add their own adapter to one base share an engine: who starts it, who joins, and when it ends."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.integration.worker_rig import spec

from dockyard.engines.base import Row, Sampling
from dockyard.engines.groups import group_of
from dockyard.engines.shared import COMMAND, SharedEngine
from dockyard.errors import Failed, Reason
from dockyard.protocols.generation import Adapter

Seated = Callable[..., SharedEngine]
ON_GPUS = {"device": "cuda", "gpus": 1, "gpu_ids": ["GPU-1"]}
ROW = Row(list(b"ship"), 8, Sampling(temperature=0))


@pytest.fixture
async def seated(tmp_path: Path) -> AsyncIterator[Seated]:
    """Makes replicas' seats; afterwards none is left, and no engine."""
    seats: list[SharedEngine] = []

    def make(version: str, on_lost: Callable[[], None] = lambda: None, rank: int = 8, **fields: object) -> SharedEngine:
        adapter = Adapter(folder=str(tmp_path), rank=rank, version_id=version, sockets=str(tmp_path))
        own = spec(adapter=adapter, **fields)
        adapter.group = group_of(own)
        seats.append(SharedEngine(own, (*COMMAND, "--linger-s", "0.3"), on_lost))
        return seats[-1]

    yield make
    pids = engines(tmp_path)
    for seat in seats:
        seat.close()
    await asyncio.gather(*(ended(pid) for pid in pids))
    assert not list(tmp_path.glob("*.e*"))


def engines(folder: Path) -> set[int]:
    """Pids of the engines whose sockets are in `folder`."""
    pids: set[int] = set()
    for path in folder.glob("*.e*"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                continue
            pids.add(int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4), "little"))
    return pids


async def ended(pid: int) -> None:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(fd, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)


async def text(engine: SharedEngine) -> bytes:
    return bytes([i for ids in [ids async for ids in engine.submit(ROW)] for i in ids if i < 256])


async def test_two_fine_tunes_of_one_base_share_an_engine(seated: Seated, tmp_path: Path) -> None:
    one, two = seated("v-1"), seated("v-2")
    await asyncio.gather(asyncio.to_thread(one.load), asyncio.to_thread(two.load))
    assert await asyncio.gather(text(one), text(two)) == [b"ship", b"ship"]
    assert len(engines(tmp_path)) == 1


async def test_replicas_of_one_version_and_of_other_settings_do_not(seated: Seated, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "tokenizer.json").write_text("{}")  # another tokenizer: schemas would be compiled for the wrong one
    seats = [
        *(seated("v-1"), seated("v-1"), seated("v-2", max_batch_size=5), seated("v-3", rank=17)),
        *(seated("v-4", eos_token_ids=[300]), seated("v-5", model_dir=str(other))),
    ]
    for seat in seats:
        await asyncio.to_thread(seat.load)
    assert await asyncio.gather(*(text(seat) for seat in seats)) == [b"ship"] * 6
    assert len(engines(tmp_path)) == 6


async def test_on_the_same_gpus_there_is_one_engine_whoever_comes(seated: Seated, tmp_path: Path) -> None:
    first, other = seated("v-1", **ON_GPUS), seated("v-2", **ON_GPUS, threads=3)
    elsewhere = seated("v-1", **ON_GPUS | {"gpu_ids": ["GPU-2"]})
    for seat in (first, other, elsewhere):
        await asyncio.to_thread(seat.load)
    assert await asyncio.gather(text(first), text(other), text(elsewhere)) == [b"ship"] * 3
    assert len(engines(tmp_path)) == 2
    for unwelcome in (seated("v-1", **ON_GPUS), seated("v-3", **ON_GPUS, max_batch_size=5)):
        with pytest.raises(Failed, match="has no seat") as caught:
            await asyncio.to_thread(unwelcome.load)
        assert caught.value.reason is Reason.ENGINE_CRASHED
    assert len(engines(tmp_path)) == 2


async def test_the_engine_outlives_the_replica_that_started_it(seated: Seated, tmp_path: Path) -> None:
    one, two = seated("v-1"), seated("v-2")
    await asyncio.to_thread(one.load)
    await asyncio.to_thread(two.load)
    (pid,) = engines(tmp_path)
    one.close()
    assert await text(two) == b"ship"
    two.close()
    await ended(pid)


async def test_all_hear_of_its_end_and_the_next_replica_starts_another(seated: Seated, tmp_path: Path) -> None:
    lost = [asyncio.Event(), asyncio.Event()]
    seats = [seated(f"v-{i}", event.set) for i, event in enumerate(lost)]
    for seat in seats:
        await asyncio.to_thread(seat.load)
        assert await text(seat) == b"ship"
    (pid,) = engines(tmp_path)
    os.kill(pid, signal.SIGKILL)
    await asyncio.gather(*(event.wait() for event in lost))
    third = seated("v-3")
    await asyncio.to_thread(third.load)
    assert await text(third) == b"ship"
    assert pid not in engines(tmp_path)


async def test_who_is_cancelled_leaves_and_the_others_stay(seated: Seated, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"step_ms": 0}')
    engine = seated("v-1", artifact_dir=str(tmp_path), max_batch_size=1)
    await asyncio.to_thread(engine.load)
    endless = engine.submit(Row(list(b"a" * 100_000), 100_000, Sampling(temperature=0)))
    assert await anext(endless)
    endless.cancel()
    assert await text(engine) == b"ship"  # there is one place in the batch
    assert engine.running == 0


async def test_why_it_could_not_load_is_told(seated: Seated, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"faults": {"4": "load"}}')
    with pytest.raises(Failed, match="told to refuse this model") as caught:
        await asyncio.to_thread(seated("v-1", artifact_dir=str(tmp_path)).load)
    assert caught.value.reason is Reason.ENGINE_FAILED
