"""Keeps one spare for each engine that replicas may soon be started of, as far as the host has room."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import structlog

from dockyard.domain.devices import MIB, Host
from dockyard.domain.replica import back_off_s
from dockyard.errors import Unavailable
from dockyard.fleets.local.process import Process
from dockyard.fleets.local.spare import LocalSpare
from dockyard.protocols.generation import WorkerSpec
from dockyard.protocols.spares import MOST_READ_AHEAD, UNNAMED

# Room is for replicas first. A spare for Transformers takes some 280 MiB: it is made where more than that is left over,
# and given back where little is; what it frees is too little to be made again at once.
ROOM_TO_MAKE = 1536 * MIB
ROOM_TO_KEEP = 512 * MIB

_logger = structlog.get_logger()


class Spares:
    """`busy` tells whether a replica is on its way: a new spare waits until it serves, so as not to slow it down.

    `on_change` is called when a spare gets ready or ends.
    """

    def __init__(
        self,
        command: Sequence[str],
        run_dir: Path,
        *,
        host: Callable[[], Host],
        busy: Callable[[], bool],
        on_change: Callable[[], None],
        answer_timeout_s: float,
    ) -> None:
        self._command = tuple(command)
        self._run_dir = run_dir
        self._host = host
        self._busy = busy
        self._on_change = on_change
        self._answer_timeout_s = answer_timeout_s
        self._wanted: frozenset[str] = frozenset()
        self._models: dict[str, dict[str, None]] = {}  # folders of those started last, by engine, the last one last
        self._reading: dict[LocalSpare, asyncio.Task[None]] = {}
        self._spares: dict[str, LocalSpare] = {}
        self._failures: dict[str, int] = {}  # in a row, by engine
        self._due: dict[str, asyncio.TimerHandle] = {}  # engines whose spare has died, until it is made anew
        self._unfit: set[str] = set()
        self._closed = False

    def keep(self, engines: Collection[str]) -> None:
        """From now on keep a spare for each of `engines`, and for no other."""
        self._wanted = frozenset(engines)
        self.tend()

    def pids(self) -> dict[str, int]:
        """The spares that can be forked now, by engine."""
        return {engine: spare.pid for engine, spare in self._spares.items() if spare.ready}

    def read(self) -> dict[str, tuple[str, ...]]:
        """Folders of the models that have been read ahead, by engine."""
        return {engine: tuple(spare.read) for engine, spare in self._spares.items()}

    def tend(self) -> None:
        """Bury spares that have ended, end what is too many, make what is missing. Call it at any change."""
        if self._closed:
            return
        for engine, spare in list(self._spares.items()):
            if spare.ended:
                self._lose(engine, spare)
        if not self._busy():
            self._read_ahead()
        missing = self._wanted - self._spares.keys() - self._due.keys() - self._unfit
        idle = [spare for spare in self._spares.values() if spare.idle]
        if not missing and not idle:
            return
        available = self._host().available_bytes
        for spare in idle:  # one with replicas shares nearly all of its memory with them
            if spare.engine not in self._wanted or available < ROOM_TO_KEEP:
                spare.dismiss()
        if available >= ROOM_TO_MAKE and not self._busy():
            for engine in sorted(missing):
                self._make(engine)

    async def fork(self, spec: WorkerSpec, listener: socket.socket) -> Process | None:
        """The replica's process, made of a spare; None where there is none that could."""
        self._remember(spec)
        spare = self._spares.get(spec.engine)
        if spare is None or not spare.ready or len(spec.replica_id) > len(UNNAMED):
            return None
        try:
            process = await spare.fork(spec, listener)
        except Unavailable as error:
            _logger.warning(
                "a spare could not be used; the replica is started afresh", engine=spec.engine, why=str(error)
            )
            return None
        self._failures.pop(spec.engine, None)
        return process

    async def close(self) -> None:
        self._closed = True
        for timer in self._due.values():
            timer.cancel()
        for spare in self._spares.values():
            spare.dismiss()
        while self._spares:
            _, spare = self._spares.popitem()
            await spare.over()
            spare.remove_log()

    def _remember(self, spec: WorkerSpec) -> None:
        models = self._models.setdefault(spec.engine, {})
        models.pop(spec.model_dir, None)
        models[spec.model_dir] = None
        while len(models) > MOST_READ_AHEAD:
            del models[next(iter(models))]

    def _read_ahead(self) -> None:
        """Have each spare read what its models' next replicas need, one after the other, in a quiet moment."""
        for engine, spare in self._spares.items():
            unread = [folder for folder in self._models.get(engine, ()) if folder not in spare.read]
            if unread and spare.ready and spare not in self._reading:
                self._reading[spare] = asyncio.create_task(self._read(spare, unread[-1]), name=f"read ahead: {engine}")

    async def _read(self, spare: LocalSpare, model_dir: str) -> None:
        try:
            with contextlib.suppress(Unavailable):  # its end is noticed where it is watched
                await spare.read_ahead(model_dir)
        finally:
            del self._reading[spare]
        self._changed()

    def _make(self, engine: str) -> None:
        try:
            self._spares[engine] = LocalSpare(
                self._command,
                engine,
                self._run_dir,
                on_change=self._changed,
                answer_timeout_s=self._answer_timeout_s,
            )
        except OSError as error:
            self._put_off(engine, str(error))

    def _changed(self) -> None:
        self.tend()
        self._on_change()

    def _lose(self, engine: str, spare: LocalSpare) -> None:
        del self._spares[engine]
        if spare.unfit is not None:
            self._unfit.add(engine)
            _logger.warning("no spares for an engine; its replicas start afresh", engine=engine, why=spare.unfit)
        elif not spare.dismissed:
            self._put_off(engine, "it ended; the last lines of its log say more", log_tail=spare.last_lines())
        spare.remove_log()

    def _put_off(self, engine: str, why: str, **more: object) -> None:
        failures = self._failures[engine] = self._failures.get(engine, 0) + 1
        wait_s = back_off_s(failures)
        self._due[engine] = asyncio.get_running_loop().call_later(wait_s, self._try_again, engine)
        _logger.warning("a spare failed", engine=engine, why=why, again_in_s=wait_s, **more)

    def _try_again(self, engine: str) -> None:
        del self._due[engine]
        self.tend()
