"""One replica process and a client of its socket."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from tests.conversion import MODELS

from dockyard.protocols.generation import (
    TOKEN_HEADER,
    GenerateEvent,
    Health,
    ReplicaError,
    WorkerSpec,
    decode_event,
    decode_health,
)

TOKEN = "secret-of-the-replica"


def spec(**fields: Any) -> WorkerSpec:
    """An echo replica, but for what `fields` says."""
    known: dict[str, Any] = {
        "replica_id": "rp-1",
        "token": TOKEN,
        "engine": "echo",
        "artifact_dir": str(MODELS / "echo"),
        "family": "decoder",
        "device": "cpu",
        "compute_type": "none",
        "max_batch_size": 4,
        "context_length": 4096,
        "threads": 1,
        "eos_token_ids": [256],
        **fields,
    }
    return WorkerSpec(**{"model_dir": known["artifact_dir"], **known})


def gpt2_spec(artifact: Path, **fields: Any) -> dict[str, Any]:
    """Fields of a CTranslate2 replica of gpt2-kjv."""
    return {
        "engine": "ctranslate2",
        "artifact_dir": str(artifact),
        "model_dir": str(MODELS / "gpt2-kjv"),
        "compute_type": "float32",
        "context_length": 256,
        "eos_token_ids": [0],
        **fields,
    }


class RunningWorker:
    def __init__(self, process: asyncio.subprocess.Process, path: Path, log: Path) -> None:
        self.process = process
        self._log = log
        self._session = aiohttp.ClientSession(
            "http://replica", connector=aiohttp.UnixConnector(str(path), limit=0), headers={TOKEN_HEADER: TOKEN}
        )

    @property
    def log(self) -> list[str]:
        return self._log.read_text().splitlines()

    async def ended(self) -> int:
        return await self.process.wait()

    async def close(self) -> None:
        await self._session.close()
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def health(self) -> Health:
        async with self._session.get("/health") as reply:
            return decode_health.decode(await reply.read())

    async def status_of(self, method: str, path: str, token: str) -> tuple[int, ReplicaError]:
        async with self._session.request(method, path, headers={TOKEN_HEADER: token}) as reply:
            return reply.status, msgspec.json.decode(await reply.read(), type=ReplicaError)

    async def watch(self) -> AsyncGenerator[Health, None]:
        """Until the replica ends the stream, or the iterator is closed."""
        async with self._session.get("/watch", timeout=aiohttp.ClientTimeout()) as reply:
            async for line in reply.content:
                yield decode_health.decode(line)

    async def until_ready(self) -> Health:
        async for health in self.watch():
            if health.phase in ("ready", "failed"):
                return health
        raise AssertionError("the replica ended before it was ready")

    async def refused(self, **request: Any) -> tuple[int, ReplicaError]:
        async with self._session.post("/generate", data=body_of(request)) as reply:
            return reply.status, msgspec.json.decode(await reply.read(), type=ReplicaError)

    @asynccontextmanager
    async def stream(self, **request: Any) -> AsyncIterator[AsyncIterator[GenerateEvent]]:
        """Events as they come; leaving drops the connection."""
        async with self._session.post("/generate", data=body_of(request)) as reply:
            assert reply.status == 200, await reply.text()
            yield _events(reply)
            reply.close()

    async def generate(self, **request: Any) -> list[GenerateEvent]:
        async with self.stream(**request) as events:
            return [event async for event in events]


async def _events(reply: aiohttp.ClientResponse) -> AsyncIterator[GenerateEvent]:
    async for line in reply.content:
        yield decode_event.decode(line)


async def start(folder: Path, of: WorkerSpec | bytes, *options: str) -> RunningWorker:
    """`options` go to the worker; bytes in place of a spec go as they are."""
    folder.mkdir()
    path = folder / "s"
    log = folder / "log"
    with socket.socket(socket.AF_UNIX) as listening, log.open("ab") as log_file:
        listening.bind(str(path))
        listening.listen(128)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "dockyard.worker"),
            *("--socket-fd", str(listening.fileno()), "--replica-id", "rp-1", *options),
            stdin=asyncio.subprocess.PIPE,
            stdout=log_file,
            stderr=log_file,
            pass_fds=[listening.fileno()],
            start_new_session=True,
        )
    assert process.stdin is not None
    process.stdin.write(of if isinstance(of, bytes) else msgspec.json.encode(of))
    process.stdin.close()
    return RunningWorker(process, path, log)


def body_of(request: dict[str, Any]) -> bytes:
    return json.dumps({"id": "1", "temperature": 0, **request}).encode()


def text_of(events: Sequence[GenerateEvent]) -> str:
    return "".join(event.text for event in events)
