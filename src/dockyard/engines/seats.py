"""How a replica comes to sit in an engine that others use, too: it joins one that runs, or starts one.

The first replica that wants one starts it; which other one may join is told by its socket's name (`engines.groups`). A
lock makes sure that two replicas do not start the same. All of this blocks.
"""

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from dockyard.domain.adapter_slots import rank_of_slot
from dockyard.engines.groups import socket_on_gpus, sockets_on_a_cpu, temporary_folder
from dockyard.engines.sharing import (
    Broken,
    Join,
    Loaded,
    Loading,
    Taken,
    ToReplica,
    Welcome,
    decode_to_replica,
    framed,
)
from dockyard.errors import Failed, Reason
from dockyard.protocols.generation import Adapter, WorkerSpec

_MOST_ENGINES = 100  # of one base on one machine
_WELCOME_WITHIN_S = 60.0  # an import may hold its process's only thread
_CHUNK = 1 << 16


def take_seat(spec: WorkerSpec, adapter: Adapter, command: tuple[str, ...]) -> tuple[socket.socket, int]:
    """A connection to an engine that has welcomed the replica, and its pid; replicas have it by turns.

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


def wait_until_loaded(connection: socket.socket, tell: Callable[[float, str], None]) -> None:
    """Until then nothing else comes. Raises `Failed` with the engine's reason."""
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
