"""A spare: a worker that has imported its engine and waits, to be forked into a replica within milliseconds.

It runs one thread, the one that forks: so no lock is held by a thread that the child would lack. What an engine starts
later (event loop, OpenMP teams, CUDA) starts in the child.
"""

import contextlib
import ctypes
import gc
import importlib
import os
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from dockyard.engines.failures import translated
from dockyard.engines.registry import import_engine
from dockyard.errors import DockyardError
from dockyard.protocols.generation import WorkerSpec
from dockyard.protocols.spares import (
    DESCRIPTORS,
    UNNAMED,
    Fork,
    Forked,
    HasRead,
    ReadAhead,
    Ready,
    Reap,
    Reaped,
    Refused,
    Told,
    Unfit,
    decode_request,
    encode,
)
from dockyard.worker.log import log
from dockyard.worker.tokenizer import read_ahead

# What a replica imports at its first use, whatever the engine.
_LATE_IMPORTS = ("tokenizers", "dockyard.worker.chat_template", "encodings.unicode_escape")
_NICE = 10  # the imports take seconds of a core that the running replicas compute with
_THREAD_ENDS_WITHIN_S = 1.0
EXIT_NO_ENGINE = 3


class Spare:
    """`control`: the socket to the fleet."""

    def __init__(self, engine: str, control: socket.socket) -> None:
        self._engine = engine
        self._control = control

    def wait_to_be_replica(self) -> tuple[WorkerSpec, socket.socket]:
        """Imports, then serves the fleet. Returns in forked children only, each with its spec and listening socket."""
        began = time.monotonic()
        self._import()
        why = _unfit()
        if why is not None:
            self._say(Unfit(why))
            os._exit(0)
        gc.collect()
        gc.freeze()  # a collection would write to every page that the replicas share
        self._say(Ready((time.monotonic() - began) * 1000))
        while True:
            message, descriptors, _, _ = socket.recv_fds(self._control, 1024, DESCRIPTORS)
            if not message:
                os._exit(0)  # the server is gone, or has no more use for it
            match decode_request(message):
                case Fork(replica_id):
                    if self._fork(descriptors):
                        return _begin_as(replica_id, descriptors)
                case Reap(pid):
                    self._say(_reap(pid))
                case ReadAhead(model_dir):
                    self._read_ahead(Path(model_dir))

    def _import(self) -> None:
        """On a thread of its own, which has ended before the first fork.

        Priorities belong to threads, and an ordinary user cannot raise one again: so only this thread lowers its own.
        """
        failures: list[Exception] = []

        def work() -> None:
            try:
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
                for name in _LATE_IMPORTS:
                    importlib.import_module(name)
                import_engine(self._engine)
            except Exception as error:  # noqa: BLE001  whatever a library throws while it is imported is told below
                failures.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if failures:
            known = translated(failures[0], f"importing the {self._engine} engine")
            log("ERROR", "failed", reason=known.reason, message=known.message)
            os._exit(EXIT_NO_ENGINE)

    def _read_ahead(self, model_dir: Path) -> None:
        with contextlib.suppress(DockyardError, OSError):  # a replica that needs the file will tell
            read_ahead(model_dir)
        why = _unfit()
        if why is not None:
            self._say(Unfit(why))
            os._exit(0)
        self._say(HasRead())

    def _fork(self, descriptors: Sequence[int]) -> bool:
        """Whether this is the child."""
        try:
            pid = os.fork()
        except OSError as error:
            self._say(Refused(error.strerror or "the host cannot make a process"))
        else:
            if pid == 0:
                os.setsid()
                self._control.close()
                return True
            self._say(Forked(pid))
        for descriptor in descriptors:
            os.close(descriptor)
        return False

    def _say(self, told: Told) -> None:
        try:
            self._control.send(encode(told))
        except OSError:
            os._exit(0)  # nobody listens


def _unfit() -> str | None:
    """Why this process must not be forked; None if it may."""
    deadline = time.monotonic() + _THREAD_ENDS_WITHIN_S
    while len(names := _thread_names()) > 1:  # the kernel shows a thread for a moment after its end, and no event tells
        if time.monotonic() > deadline:
            return f"its imports leave {len(names)} threads running ({', '.join(names)})"
        time.sleep(0.001)
    if any("/nvidia" in target for target in _open_files()):
        return "its imports have opened a GPU, which a forked process could not use"
    return None if _arguments_at() else "the kernel does not tell where its command line is"


def _thread_names() -> list[str]:
    names: list[str] = []
    for task in Path("/proc/self/task").iterdir():
        try:
            names.append((task / "comm").read_text().strip())
        except OSError:
            continue  # it has just ended
    return names


def _open_files() -> list[str]:
    found: list[str] = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{entry}"))
        except OSError:
            continue  # the descriptor of the listing itself
    return found


def _reap(pid: int) -> Reaped:
    try:
        result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return Reaped()
    if result is None:
        return Reaped()
    return Reaped(code=result.si_status) if result.si_code == os.CLD_EXITED else Reaped(signal=result.si_status)


def _begin_as(replica_id: str, descriptors: Sequence[int]) -> tuple[WorkerSpec, socket.socket]:
    """In the child: everything that a process made by `exec` would have of its own."""
    spec_fd, socket_fd, log_fd = descriptors
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)
    os.close(log_fd)
    _show(replica_id)
    os.set_inheritable(socket_fd, False)
    with open(spec_fd, "rb") as file:
        spec = msgspec.json.decode(file.read(), type=WorkerSpec)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # for a library that is loaded from now on
        os.environ[name] = str(spec.threads)
    os.environ.update(spec.gpu_environment())  # CUDA reads it at its first use, which the spare has not had (`_unfit`)
    return spec, socket.socket(fileno=socket_fd)


def _show(replica_id: str) -> None:
    """Write the id into this process's command line: `ps` shows it, and the next server knows the replica by it."""
    place = Path("/proc/self/cmdline").read_bytes().find(UNNAMED.encode())
    name = replica_id.encode().ljust(len(UNNAMED))[: len(UNNAMED)]
    if place >= 0:
        ctypes.memmove(_arguments_at() + place, name, len(name))


def _arguments_at() -> int:
    """The address of the process's arguments: `arg_start`, field 48 of proc_pid_stat(5); 0 where it is not told."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()  # from field 3 on
    return int(fields[48 - 3])
