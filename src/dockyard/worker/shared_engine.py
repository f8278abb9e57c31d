"""One engine for replicas that add their own adapter to the same base: `python -m dockyard.worker.shared_engine
--socket-fd N < spec.json`. Started by the first of them (`engines.seats`), it ends when the last one has left.
"""

import argparse
import asyncio
import fcntl
import os
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Protocol, cast

import msgspec
import uvloop

from dockyard import oom_score
from dockyard.engines.base import Engine, Generation, Row, TellsItsStart
from dockyard.engines.constraint import Constraint
from dockyard.engines.failures import translated
from dockyard.engines.groups import temporary_folder
from dockyard.engines.registry import import_engine
from dockyard.engines.sharing import (
    Broken,
    Cancel,
    Ended,
    Frames,
    Join,
    Loaded,
    Loading,
    Submit,
    Taken,
    ToEngine,
    Tokens,
    ToReplica,
    Welcome,
    decode_to_engine,
    framed,
)
from dockyard.errors import DockyardError, Failed
from dockyard.protocols.generation import Adapter, WorkerSpec
from dockyard.worker.log import log

_LINGER_S = 3.0  # for a replica that comes in the place of the last one


class AddsAdapters(Engine, Protocol):
    """An engine that computes each row with its own adapter, or with none."""

    def submit(self, row: Row, adapter: Adapter | None = None) -> Generation: ...


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dockyard.worker.shared_engine", description=__doc__)
    parser.add_argument("--socket-fd", type=int, required=True, help="an inherited socket that listens")
    parser.add_argument("--linger-s", type=float, default=_LINGER_S, help="how long it waits for another replica")
    arguments = parser.parse_args()
    oom_score.go_first()
    given = socket.socket(fileno=arguments.socket_fd)
    spec = msgspec.json.decode(sys.stdin.buffer.read(), type=WorkerSpec)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # the replicas are told to end; it goes when they have gone
    uvloop.run(serve(spec, given, arguments.linger_s))
    _end()


async def serve(spec: WorkerSpec, listening: socket.socket, linger_s: float) -> None:
    """Until nobody has been connected for `linger_s`, or the engine could not load."""
    path = Path(listening.getsockname())
    inode = path.stat().st_ino
    shared = SharedEngine(spec, linger_s)
    server = await asyncio.get_running_loop().create_unix_server(lambda: Seat(shared), sock=listening)
    log("INFO", "shared_engine_started", engine=spec.engine, pid=os.getpid())
    loading = asyncio.create_task(shared.load())
    await shared.left.wait()
    server.close()
    shared.close()
    _unlink_own(path, inode)
    log("INFO", "shared_engine_ended", engine=spec.engine)
    if not loading.done():
        _end()  # the thread that loads would be waited for, and take memory all that while


class SharedEngine:
    """The engine and who has a seat in it."""

    def __init__(self, spec: WorkerSpec, linger_s: float) -> None:
        self.left = asyncio.Event()
        self._spec = spec
        self._linger_s = linger_s
        self._engine: AddsAdapters | None = None
        self._seats: dict[str, Seat] = {}
        self._leaving: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._rest()

    async def load(self) -> None:
        try:
            create = await asyncio.to_thread(import_engine, self._spec.engine)
            engine = cast(AddsAdapters, create(self._spec))
            if isinstance(engine, TellsItsStart):
                engine.tell_start = self._hear_start
            await asyncio.to_thread(engine.load)
        except Exception as error:  # noqa: BLE001  whatever an engine's library throws is told, not swallowed
            known = translated(error, f"loading the shared {self._spec.engine} engine")
            log("ERROR", "failed", reason=known.reason, message=known.message)
            self._tell_all(Broken(known.reason, known.message))
            self.left.set()
            return
        self._engine = engine
        oom_score.go_with_others()
        self._tell_all(Loaded())

    def take(self, seat: "Seat", adapter: Adapter) -> bool:
        """False where a replica of the same version has a seat, and for one that could not share it."""
        own = self._spec.adapter
        if adapter.version_id in self._seats or self.left.is_set() or (own and own.group != adapter.group):
            return False
        self._seats[adapter.version_id] = seat
        if self._leaving is not None:
            self._leaving.cancel()
        seat.send(Welcome(os.getpid()))
        if self._engine is not None:
            seat.send(Loaded())
        return True

    def leave(self, adapter: Adapter) -> None:
        self._seats.pop(adapter.version_id, None)
        if not self._seats:
            self._rest()

    async def constraint(self, message: Submit) -> Constraint | None:
        """Raises `DockyardError`, though the replica has compiled the schema before."""
        if message.schema is None or self._engine is None or self._engine.constraints is None:
            return None
        return await asyncio.to_thread(self._engine.constraints.compile, message.schema)

    def submit(self, message: Submit, constraint: Constraint | None, adapter: Adapter) -> Generation:
        if self._engine is None:
            raise Failed("the shared engine has no model yet")
        row = Row(
            prompt=message.prompt,
            max_new=message.max_new,
            sampling=message.sampling,
            resume=message.resume,
            constraint=constraint,
            logprobs=message.logprobs,
        )
        return self._engine.submit(row, adapter)

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()

    def _rest(self) -> None:
        self._leaving = self._loop.call_later(self._linger_s, self.left.set)

    def _hear_start(self, share: float, words: str) -> None:
        self._loop.call_soon_threadsafe(self._tell_all, Loading(share, words))

    def _tell_all(self, message: ToReplica) -> None:
        for seat in self._seats.values():
            seat.send(message)


class Seat(asyncio.Protocol):
    """One replica's connection."""

    def __init__(self, shared: SharedEngine) -> None:
        self._shared = shared
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self._adapter: Adapter | None = None
        self._running: dict[int, Generation | None] = {}  # None: its schema is being compiled
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none of its classes

    def data_received(self, data: bytes) -> None:
        for body in self._frames.feed(data):
            self._take(decode_to_engine(body))

    def connection_lost(self, exc: Exception | None) -> None:
        running, self._running = self._running, {}
        for generation in running.values():
            if generation is not None:
                generation.cancel()
        if self._adapter is not None:
            self._shared.leave(self._adapter)

    def send(self, message: ToReplica) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(framed(message))

    def _take(self, message: ToEngine) -> None:
        match message:
            case Join(adapter):
                if self._shared.take(self, adapter):
                    self._adapter = adapter
                else:
                    self.send(Taken())
            case Submit(number):
                self._running[number] = None
                task = asyncio.create_task(self._run(message), name=f"row {message.number}")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case Cancel(number):
                if (generation := self._running.pop(number, None)) is not None:
                    generation.cancel()

    async def _run(self, message: Submit) -> None:
        number = message.number
        try:
            if self._adapter is None:
                raise Failed("a replica takes a seat before it submits")
            constraint = await self._shared.constraint(message)
            if number not in self._running:
                return  # cancelled meanwhile
            generation = self._running[number] = self._shared.submit(message, constraint, self._adapter)
            async for ids in generation:
                self.send(Tokens(number, ids, generation.chances))
            self.send(Ended(number))
        except DockyardError as error:
            self.send(Ended(number, error.reason, error.message))
        finally:
            self._running.pop(number, None)


def _end() -> None:
    sys.stderr.flush()
    os.killpg(0, signal.SIGKILL)  # itself, and whatever the engine has started


def _unlink_own(path: Path, inode: int) -> None:
    """A replica that has found nobody at that name makes its own; so in turn with those that look."""
    with path.with_suffix(".turn").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if path.exists() and path.stat().st_ino == inode:
            path.unlink()
            shutil.rmtree(temporary_folder(path), ignore_errors=True)


if __name__ == "__main__":
    main()
