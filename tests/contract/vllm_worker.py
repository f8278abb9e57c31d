"""vLLM in the suites of the engines: a real worker in vLLM's own Python, and an engine that is its client.

vLLM cannot be imported where the tests run. What the suites ask of an engine goes over the worker's socket instead.
"""

import asyncio
import http.client
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import msgspec
from tests.vllm_environment import ENVIRONMENTS

from dockyard.engines.base import Generation, Row
from dockyard.engines.constraint import Constraints
from dockyard.errors import Failed, Reason
from dockyard.fleets.local.spawn import bound, environment, identity
from dockyard.protocols.generation import (
    TOKEN_HEADER,
    GenerateRequest,
    Health,
    WorkerSpec,
    decode_event,
    decode_health,
    encode_request,
)

START_S = 900.0


class VllmWorker:
    """A running worker. `healths`: all that it told of itself while it started, and afterwards."""

    def __init__(self, process: "subprocess.Popen[bytes]", path: str, spec: WorkerSpec, log: Path) -> None:
        self.process = process
        self.path = path
        self.spec = spec
        self.log = log
        self.healths: list[Health] = []
        self._told = threading.Condition()
        self._over = False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def ready(self) -> None:
        """Wait until it serves. Raises `AssertionError` with its log if it ends instead."""
        with self._told:
            self._told.wait_for(lambda: self._over or self._phase() == "ready", START_S)
            assert self._phase() == "ready", self.log.read_text()[-6000:]

    def health(self) -> Health:
        """As of now."""
        with _connected(self.path, self.spec.token, "/health") as reply:
            return decode_health.decode(reply.read())

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self._thread.join()

    def _phase(self) -> str:
        return self.healths[-1].phase if self.healths else ""

    def _watch(self) -> None:
        """Also tells it that somebody lives: with the tests it ends, too."""
        try:
            with _connected(self.path, self.spec.token, "/watch") as reply:
                while line := reply.readline():
                    with self._told:
                        self.healths.append(decode_health.decode(line))
                        self._told.notify_all()
        except (OSError, http.client.HTTPException):
            pass  # it was killed: what the wait for it tells below
        with self._told:
            self._over = True
            self._told.notify_all()


@contextmanager
def vllm_worker(folder: Path, spec: WorkerSpec) -> Iterator[VllmWorker]:
    """A worker of `spec` inside this; `folder` is short enough for a socket and gone afterwards."""
    own = ENVIRONMENTS.command_of("vllm")
    assert own is not None
    path, log = str(folder / "w.sock"), folder / "log"
    with bound(path) as listener, log.open("wb") as output:
        process = subprocess.Popen(
            [str(own[0]), "-m", "dockyard.worker", *identity(listener.fileno(), spec.replica_id, folder)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=(listener.fileno(),),
            start_new_session=True,
            env={**environment(spec.threads, os.environ), **own[1], "TMPDIR": str(folder)},
        )
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(spec))
    process.stdin.close()
    worker = VllmWorker(process, path, spec, log)
    try:
        worker.ready()
        yield worker
    finally:
        worker.close()
        shutil.rmtree(folder, ignore_errors=True)


class RemoteEngine:
    """Implements `engines.base.Engine`."""

    name = "vllm"
    can_seed = True
    constraints: Constraints | None = None

    def __init__(self, worker: VllmWorker) -> None:
        self.capacity = worker.health().capacity
        self.eos_token_ids = frozenset(worker.spec.eos_token_ids)
        self._worker = worker
        self._tasks: dict[Generation, asyncio.Task[None]] = {}

    @property
    def largest_batch(self) -> int:
        return self._worker.health().largest_batch

    @property
    def running(self) -> int:
        return self._worker.health().running

    @property
    def waiting(self) -> int:
        return self._worker.health().waiting

    def load(self) -> None:
        """The worker has."""

    def submit(self, row: Row) -> Generation:
        generation = Generation(row, self._leave)
        self._tasks[generation] = asyncio.create_task(self._generate(generation))
        return generation

    def close(self) -> None:
        for generation in list(self._tasks):
            generation.cancel()

    async def _generate(self, generation: Generation) -> None:
        try:
            connector = aiohttp.UnixConnector(path=self._worker.path)
            headers = {TOKEN_HEADER: self._worker.spec.token}
            async with (
                aiohttp.ClientSession("http://replica", connector=connector, headers=headers) as session,
                session.post("/generate", data=encode_request.encode(_request(generation.row))) as reply,
            ):
                if reply.status != 200:
                    raise Failed(await reply.text(), reason=Reason.ENGINE_FAILED)
                async for line in reply.content:
                    self._take(generation, line)
        except Failed as error:
            generation.end(error)
        finally:
            self._tasks.pop(generation, None)

    def _take(self, generation: Generation, line: bytes) -> None:
        event = decode_event.decode(line)
        if event.error is not None:
            raise Failed(event.error.message, reason=Reason(event.error.reason))
        generation.prefilled = event.prefilled if event.prefilled is not None else generation.prefilled
        generation.deliver(event.ids)
        if event.finish == "stop":
            generation.deliver([min(self.eos_token_ids)])  # no stop sequence was asked for; events do not carry it
        if event.finish is not None:
            generation.end()

    def _leave(self, generation: Generation) -> None:
        task = self._tasks.get(generation)
        if task is not None:
            task.cancel()  # drops the connection


def _request(row: Row) -> GenerateRequest:
    return GenerateRequest(
        id="1",
        prompt_ids=list(row.prompt),
        temperature=row.sampling.temperature,
        top_p=row.sampling.top_p,
        top_k=row.sampling.top_k,
        seed=row.sampling.seed,
        max_tokens=len(row.resume) + row.max_new,
        resume=list(row.resume),
        prefilled=row.prefilled,
    )


@contextmanager
def _connected(path: str, token: str, route: str) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("replica")
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.sock.connect(path)
        connection.request("GET", route, headers={TOKEN_HEADER: token})
        yield connection.getresponse()
    finally:
        connection.close()
