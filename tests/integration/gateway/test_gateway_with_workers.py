"""The gateway in front of real replica processes with the echo engine, `kill -9` included."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.integration.gateway_rig import SHIP, Rig
from tests.integration.worker_rig import TOKEN, RunningWorker, spec, start

from dockyard.protocols.fleet import ReplicaAddress

PROMPT = "the quick brown fox jumps over the lazy dog; größer als ein Hund: 犬"
HYPER: dict[str, Any] = {"temperature": 0, "max_tokens": 512, "top_p": 1, "top_k": 1, "stop": ()}


@asynccontextmanager
async def workers(
    rig: Rig, directory: Path, count: int, step_ms: int | None = None
) -> AsyncIterator[list[RunningWorker]]:
    """Echo replicas behind `rig`; with `step_ms` they say one token every so often."""
    model = directory / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"step_ms": step_ms} if step_ms is not None else {}))
    running: list[RunningWorker] = []
    try:
        for index in range(count):
            made = spec(replica_id=f"rp-{index}", artifact_dir=str(model))
            running.append(await start(directory / str(index), made))
            await running[-1].until_ready()
            address = ReplicaAddress(token=TOKEN, socket=str(directory / str(index) / "s"))
            rig.add(made.replica_id, address, capacity=4)
        rig.publish(hyper=SHIP.hyper.__class__(**HYPER))
        yield running
    finally:
        for worker in running:
            await worker.close()


async def test_the_echo_comes_back(rig: Rig, tmp_path: Path) -> None:
    async with workers(rig, tmp_path, 1):
        client = rig.openai()
        reply = await client.completions.create(model="Ship 1", prompt=PROMPT)
        assert reply.choices[0].text == PROMPT
        assert reply.choices[0].finish_reason == "stop"
        assert reply.usage is not None
        assert reply.usage.completion_tokens == len(PROMPT.encode())
        reply = await client.completions.create(model="Ship 1", prompt=PROMPT, max_tokens=5, stop="zzz")
        assert (reply.choices[0].text, reply.choices[0].finish_reason) == (PROMPT[:5], "length")
        reply = await client.completions.create(model="Ship 1", prompt=PROMPT, stop=["fox"])
        assert (reply.choices[0].text, reply.choices[0].finish_reason) == (PROMPT.partition("fox")[0], "stop")
        with pytest.raises(openai.BadRequestError) as refused:
            await client.completions.create(model="Ship 1", prompt="x" * 5000)
        assert refused.value.code == "CONTEXT_LENGTH_EXCEEDED"


async def test_kill_9_of_replicas_in_mid_stream_costs_nobody_a_character(rig: Rig, tmp_path: Path) -> None:
    async with workers(rig, tmp_path, 3, step_ms=2) as running:
        client = rig.openai()
        first_pieces = asyncio.Queue[None]()

        async def stream() -> str:
            text = ""
            async for chunk in await client.completions.create(model="Ship 1", prompt=PROMPT, stream=True):
                if not text:
                    first_pieces.put_nowait(None)
                text += chunk.choices[0].text
            return text

        async with asyncio.TaskGroup() as group:
            streams = [group.create_task(stream()) for _ in range(6)]
            for _ in streams:
                await first_pieces.get()
            for worker in running[:2]:
                worker.process.kill()
        assert [task.result() for task in streams] == [PROMPT] * 6
        assert (rig.metric("dockyard_failovers_total", deployment="Ship 1") or 0) >= 4
