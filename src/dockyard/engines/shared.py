"""An engine that other replicas use, too: this is a replica's seat in its process (`worker.shared_engine`).

What goes over the connection is `engines.sharing`, how a seat is taken `engines.seats`.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

from dockyard.engines.base import Generation, Row
from dockyard.engines.children import end_without_engine
from dockyard.engines.constraint import Constraints
from dockyard.engines.groups import MODULE
from dockyard.engines.seats import take_seat, wait_until_loaded
from dockyard.engines.sharing import (
    Cancel,
    Ended,
    Frames,
    Submit,
    ToEngine,
    Tokens,
    ToReplica,
    decode_to_replica,
    framed,
)
from dockyard.engines.vocabulary import read_vocabulary
from dockyard.errors import Failed, Reason
from dockyard.protocols.generation import WorkerSpec

COMMAND = (sys.executable, "-m", MODULE)


class SharedEngine:
    """`command` starts the engine's process; `on_lost` is called on the loop when it is gone, and ends the replica."""

    name = "vllm"
    can_seed = True

    def __init__(
        self, spec: WorkerSpec, command: tuple[str, ...] = COMMAND, on_lost: Callable[[], None] | None = None
    ) -> None:
        assert spec.adapter is not None
        self.capacity = spec.max_batch_size
        self.eos_token_ids = frozenset(spec.eos_token_ids)
        self.largest_batch = 0
        self.tell_start: Callable[[float, str], None] = lambda share, words: None
        self.constraints: Constraints | None = Constraints(
            lambda: read_vocabulary(Path(spec.model_dir)), lambda: self.eos_token_ids
        )
        self._spec = spec
        self._adapter = spec.adapter
        self._command = command
        self._on_lost = on_lost or end_without_engine
        self._link: _Link | None = None
        self._pid = 0  # of the engine's process
        self._open: dict[int, Generation] = {}
        self._numbers: dict[Generation, int] = {}
        self._count = 0

    @property
    def running(self) -> int:
        return min(len(self._open), self.capacity)

    @property
    def waiting(self) -> int:
        return len(self._open) - self.running

    def load(self) -> None:
        """Take a seat, in an engine that is started unless there is one, and wait until it has loaded."""
        connection, pid = take_seat(self._spec, self._adapter, self._command)
        try:
            wait_until_loaded(connection, self.tell_start)
        except BaseException:
            connection.close()
            raise
        self._pid = pid
        self._link = _Link(connection, self._take, self._lost)

    def submit(self, row: Row) -> Generation:
        if self._link is None:
            raise Failed("the engine has no model yet: load() comes before submit()")
        generation = Generation(row, self._leave)
        self._count += 1
        self._open[self._count] = generation
        self._numbers[generation] = self._count
        self.largest_batch = max(self.largest_batch, self.running)
        self._link.send(
            Submit(
                number=self._count,
                prompt=row.prompt,
                max_new=row.max_new,
                sampling=row.sampling,
                resume=row.resume,
                schema=row.constraint.schema if row.constraint else None,
                logprobs=row.logprobs,
            )
        )
        return generation

    def close(self) -> None:
        for generation in list(self._open.values()):
            generation.cancel()
        if self._link is not None:
            self._link.close()
            self._link = None

    def _leave(self, generation: Generation) -> None:
        number = self._numbers.pop(generation, None)
        if number is not None and self._open.pop(number, None) is not None and self._link is not None:
            self._link.send(Cancel(number))

    def _take(self, message: ToReplica) -> None:
        match message:
            case Tokens(number, ids, chances):
                if (generation := self._open.get(number)) is not None:
                    generation.deliver(ids, chances)
            case Ended(number, reason, words):
                if (generation := self._open.pop(number, None)) is not None:
                    self._numbers.pop(generation, None)
                    generation.end(Failed(words, reason=Reason(reason)) if reason else None)
            case _:
                pass

    def _lost(self) -> None:
        """What the engine's process had started may have outlived it."""
        if self._link is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)
        self._on_lost()


class _Link(asyncio.Protocol):
    """The connection once the engine has loaded; the loop has it from the first message on."""

    def __init__(self, connection: socket.socket, take: Callable[[ToReplica], None], lost: Callable[[], None]) -> None:
        self._connection = connection
        self._take = take
        self._lost = lost
        self._frames = Frames()
        self._unsent: list[bytes] = []
        self._connecting: asyncio.Task[object] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none of its classes
        self._transport.writelines(self._unsent)
        self._unsent.clear()

    def data_received(self, data: bytes) -> None:
        for body in self._frames.feed(data):
            self._take(decode_to_replica(body))

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost()

    def send(self, message: ToEngine) -> None:
        if self._transport is not None:
            self._transport.write(framed(message))
            return
        self._unsent.append(framed(message))
        if self._connecting is None:
            loop = asyncio.get_running_loop()
            self._connecting = loop.create_task(loop.create_unix_connection(lambda: self, sock=self._connection))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        elif self._connecting is None:
            self._connection.close()
