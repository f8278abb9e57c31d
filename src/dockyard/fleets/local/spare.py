"""One spare process: has imported an engine, and is forked into replicas. What it says is `protocols/spares.py`."""

import asyncio
import os
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import psutil

from dockyard.errors import Unavailable
from dockyard.fleets.local import log
from dockyard.fleets.local.autopsy import Exit
from dockyard.fleets.local.process import Process
from dockyard.fleets.local.spawn import environment, identity, log_file, spec_file, start_process
from dockyard.protocols.generation import WorkerSpec
from dockyard.protocols.spares import (
    MOST_READ_AHEAD,
    UNNAMED,
    Fork,
    Forked,
    ReadAhead,
    Ready,
    Reap,
    Reaped,
    Refused,
    Reply,
    Request,
    Unfit,
    decode_told,
    encode,
)

_LONGEST_MESSAGE = 4096
_LAST_LINES = 5
# How a process ends that was forked in an unfit moment, and also one whose library has a fault: to be sure, the next
# replica is started afresh.
_CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE})


class LocalSpare:
    """`ready` once it can be forked. `on_change` is called when it gets ready, ends, or has lost a replica."""

    def __init__(
        self,
        command: Sequence[str],
        engine: str,
        run_dir: Path,
        *,
        on_change: Callable[[], None],
        answer_timeout_s: float,
    ) -> None:
        """Starts the process. Raises `OSError` when the host cannot make one."""
        self.engine = engine
        self.ready = False
        self.unfit: str | None = None
        self.ended = False
        self.dismissed = False  # its end is wanted
        self.replicas: set[int] = set()  # pids of those that live, or are still to be reaped
        self.read: list[str] = []  # folders of the models that it keeps something of
        self._log_name = f"spare-{engine}"
        self._log_path = log.path_of(run_dir, self._log_name)
        self._run_dir = run_dir
        self._on_change = on_change
        self._answer_timeout_s = answer_timeout_s
        self._replies: deque[asyncio.Future[Reply]] = deque()  # one for each request under way, in order
        self._over = asyncio.Event()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = self._start(command, theirs)
        except BaseException:
            self._control.close()
            raise
        finally:
            theirs.close()
        self._control.setblocking(False)
        asyncio.get_running_loop().add_reader(self._control.fileno(), self._on_readable)
        self._process.observe()
        self._burying = asyncio.create_task(self._bury())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def idle(self) -> bool:
        """No replica of it lives, and none is being made."""
        return not self.replicas and not self._replies

    def dismiss(self) -> None:
        """End it; replicas of it run on, and how they end can no longer be told."""
        self.dismissed = True
        self._end()

    async def over(self) -> None:
        """Return once its process is gone."""
        await self._over.wait()

    def last_lines(self) -> tuple[str, ...]:
        return log.tail(self._log_path, _LAST_LINES)

    def remove_log(self) -> None:
        self._log_path.unlink(missing_ok=True)

    async def fork(self, spec: WorkerSpec, listener: socket.socket) -> Process:
        """A new replica of `spec`. Raises `Unavailable` when it comes to nothing; then a fork may succeed later."""
        with spec_file(spec) as spec_fd, log_file(self._run_dir, spec.replica_id) as log_fd:
            reply = await self._ask(Fork(spec.replica_id), [spec_fd, listener.fileno(), log_fd])
        if not isinstance(reply, Forked):
            raise Unavailable(f"the spare refused: {reply.why}" if isinstance(reply, Refused) else "out of step")
        self.replicas.add(reply.pid)
        try:
            return Process(psutil.Process(reply.pid), self._reap)
        except (psutil.NoSuchProcess, ProcessLookupError) as error:
            raise Unavailable("the spare and the new replica are gone") from error

    async def read_ahead(self, model_dir: str) -> None:
        """Have it read what replicas of this model need. Raises `Unavailable` when the spare is no more."""
        await self._ask(ReadAhead(model_dir))
        self.read = [*self.read, model_dir][-MOST_READ_AHEAD:]

    async def _reap(self, pid: int) -> Exit | None:
        """How a replica of this spare ended; None where the spare is gone and cannot tell."""
        try:
            reply = await self._ask(Reap(pid))
        except Unavailable:
            return None
        self.replicas.discard(pid)
        if not isinstance(reply, Reaped):
            return None
        if reply.signal in _CRASHES:
            self._end()
        self._on_change()
        return Exit(code=reply.code, signal=reply.signal)

    async def _ask(self, request: Request, descriptors: Sequence[int] = ()) -> Reply:
        if self.ended:
            raise Unavailable("the spare has ended")
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        try:
            socket.send_fds(self._control, [encode(request)], descriptors)
            self._replies.append(answered)
            async with asyncio.timeout(self._answer_timeout_s):
                return await answered
        except (OSError, TimeoutError) as error:
            self._end()  # a reply that came late would be taken for another request's
            raise Unavailable(f"the spare does not answer: {error!r}") from error

    def _start(self, command: Sequence[str], control: socket.socket) -> Process:
        self.remove_log()
        with log_file(self._run_dir, self._log_name) as log_fd:
            return start_process(
                [*command, "--spare", self.engine, *identity(control.fileno(), UNNAMED, self._run_dir)],
                environment=environment(1, os.environ),  # a replica sets its own number of threads
                stdin=subprocess.DEVNULL,
                output=log_fd,
                kept=(control.fileno(),),
            )

    def _on_readable(self) -> None:
        try:
            message = self._control.recv(_LONGEST_MESSAGE)
            told = decode_told(message) if message else None
        except BlockingIOError:
            return
        except (OSError, msgspec.MsgspecError):
            told = None
        match told:
            case None:
                self._end()  # it hung up, or talks nonsense
                asyncio.get_running_loop().remove_reader(self._control.fileno())
            case Ready():
                self.ready = True
                self._on_change()
            case Unfit(why):
                self.unfit = why
            case reply:
                if self._replies and not (answered := self._replies.popleft()).done():
                    answered.set_result(reply)

    def _end(self) -> None:
        self.ready = False
        if not self.ended:
            self._process.kill()

    async def _bury(self) -> None:
        await self._process.exited.wait()
        self.ready = False
        self.ended = True
        while self._replies:
            if not (answered := self._replies.popleft()).done():
                answered.set_exception(Unavailable("the spare has ended"))
        asyncio.get_running_loop().remove_reader(self._control.fileno())
        self._control.close()
        await self._process.reap()
        self._process.close()
        self._over.set()
        self._on_change()
