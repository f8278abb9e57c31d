"""An engine that other replicas use, too: this is a replica's seat in its process (`worker.shared_engine`).

The first replica that wants one starts it; which other one may join is told by its socket's name (`engines.groups`). A
lock makes sure that two replicas do not start the same.
"""

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import msgspec

from dockyard.domain.adapter_slots import rank_of_slot
from dockyard.engines.base import Generation, Row
from dockyard.engines.children import end_without_engine
from dockyard.engines.constraint import Constraints
from dockyard.engines.groups import MODULE, socket_on_gpus, sockets_on_a_cpu
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
    decode_to_replica,
    framed,
)
from dockyard.engines.vocabulary import read_vocabulary
from dockyard.errors import Failed, Reason
from dockyard.protocols.generation import Adapter, WorkerSpec

COMMAND = (sys.executable, "-m", MODULE)
_MOST_ENGINES = 100  # of one base on one machine
_WELCOME_WITHIN_S = 60.0  # an import may hold its process's only thread
_CHUNK = 1 << 16


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
            _wait_until_loaded(connection, self.tell_start)
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


def take_seat(spec: WorkerSpec, adapter: Adapter, command: tuple[str, ...]) -> tuple[socket.socket, int]:
    """A connection to an engine that has welcomed the replica, and its pid. Blocks; replicas have it by turns.

    On a CPU there may be several of one group; on GPUs only the one that has them.
    """
    folder = Path(adapter.sockets)
    own = [socket_on_gpus(folder, spec.gpu_ids)] if spec.gpu_ids else []
    paths = own or sockets_on_a_cpu(folder, adapter.group, _MOST_ENGINES)
    with _turn(paths[0].with_suffix(".turn")):
        for path in paths:
            connection = _connected(path)
            starts = connection is None
            if starts:
                _start(path, spec, adapter, command)
                connection = _connected(path)
            if connection is not None and (pid := _welcomed(connection, adapter)) is not None:
                return connection, pid
            if starts:
                raise Failed("the shared engine ended as soon as it was started; its log says why")
    if own:
        raise Failed(
            "the engine on these GPUs has no seat for the replica: it is about to end", reason=Reason.ENGINE_CRASHED
        )
    raise Failed(f"{_MOST_ENGINES} engines of this base model run already; lower maxReplicas")


def temporary_folder(path: Path) -> Path:
    """Where the engine behind `path` may keep files that end with it: the folder of the replica that started it ends
    before.
    """
    return path.with_name(f"{path.name}d")


def _connected(path: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        return None
    return connection


def _welcomed(connection: socket.socket, adapter: Adapter) -> int | None:
    """The engine's pid; None where it has a replica of this version, or was about to end."""
    try:
        connection.settimeout(_WELCOME_WITHIN_S)
        connection.sendall(framed(Join(adapter)))
        for message in _messages(connection):
            if isinstance(message, Welcome):
                connection.settimeout(None)
                return message.pid
            if isinstance(message, Taken):
                break
    except OSError:
        pass
    connection.close()
    return None


def _wait_until_loaded(connection: socket.socket, tell: Callable[[float, str], None]) -> None:
    for message in _messages(connection):
        match message:
            case Loading(share, words):
                tell(share, words)
            case Broken(reason, words):
                raise Failed(words, reason=Reason(reason))
            case Loaded():
                return
            case _:
                pass
    raise Failed("the shared engine ended while it loaded; its log says why", reason=Reason.ENGINE_CRASHED)


def _messages(connection: socket.socket) -> Iterator[ToReplica]:
    """Those that come; nothing is read ahead of the one that is given."""
    while (head := _exactly(connection, 4)) and (body := _exactly(connection, int.from_bytes(head, "little"))):
        yield decode_to_replica(body)


def _exactly(connection: socket.socket, count: int) -> bytes:
    parts = b""
    while len(parts) < count:
        part = connection.recv(min(_CHUNK, count - len(parts)))
        if not part:
            return b""
        parts += part
    return parts


def _start(path: Path, spec: WorkerSpec, adapter: Adapter, command: tuple[str, ...]) -> None:
    """The engine's process, in a session of its own: the end of the replica that started it is not its own."""
    path.unlink(missing_ok=True)
    temporary = temporary_folder(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(mode=0o700)
    own = msgspec.structs.replace(spec, adapter=msgspec.structs.replace(adapter, rank=rank_of_slot(adapter.rank)))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, _memory(msgspec.json.encode(own)) as given:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen()
        started = subprocess.Popen(
            [*command, "--socket-fd", str(listener.fileno())],
            stdin=given,
            pass_fds=(listener.fileno(),),
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(temporary)},
        )
    started.returncode = 0  # it ends when nobody is connected to it; nobody waits for it


@contextlib.contextmanager
def _memory(content: bytes) -> Iterator[int]:
    fd = os.memfd_create("shared-engine-spec")
    try:
        os.write(fd, content)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _turn(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


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
