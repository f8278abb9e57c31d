"""One running replica: listens to it, notices its end, tells why, and cleans up behind it."""

import asyncio
import shutil
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dockyard.clock import Clock
from dockyard.domain.replica import ReplicaFailure
from dockyard.errors import Reason, Unavailable
from dockyard.fleets.local import cgroup, log
from dockyard.fleets.local.autopsy import Exit, failure_of
from dockyard.fleets.local.channel import Channel
from dockyard.fleets.local.folder import temporary_folder
from dockyard.fleets.local.process import Process
from dockyard.fleets.local.start_watch import SERVING, StartWatch
from dockyard.protocols.fleet import ReplicaAddress, ReplicaStatus
from dockyard.protocols.generation import Health, ReplicaError

LOG_TAIL_LINES = 20
_LAST_WORDS_S = 1.0  # for what a dead process had still written to its socket
_RECONNECT_S = (0.05, 2.0)  # first and longest wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long silence is borne. A replica that loads is asked more patiently: an import may hold its only thread.

    However long it takes until it is ready, for large models load slowly: every `start_timeout_s` it must have come a
    step further, or it hangs. An adopted replica must say something within `adopt_timeout_s`.
    """

    probe_interval_s: float = 5.0
    probe_timeout_s: float = 5.0
    loading_probe_timeout_s: float = 60.0
    failed_probes: int = 3
    start_timeout_s: float = 1800.0
    adopt_timeout_s: float = 10.0
    adopt_head_start_s: float = 0.25  # for a replica's answer before the others are served without it
    failed_grace_s: float = 2.0
    close_grace_s: float = 10.0
    spare_answer_timeout_s: float = 5.0  # a fork takes some 10 ms


class LocalReplica:
    """Holds the latest `status`; `on_change` is called when the replica's phase changes or it ends.

    `on_over` is called once nothing of it is left but its log, and `status` will not change any more.
    """

    def __init__(
        self,
        process: Process,
        *,
        replica_id: str,
        address: ReplicaAddress,
        channel: Channel,
        log_path: Path,
        clock: Clock,
        patience: Patience,
        on_change: Callable[[], None],
        on_over: Callable[["LocalReplica"], None],
        health: Health | None = None,
        spawned_at: float | None = None,
        gpus: tuple[str, ...] = (),
    ) -> None:
        self.status = ReplicaStatus(
            replica_id=replica_id,
            alive=True,
            pid=process.pid,
            process_started_at=process.started_at,
            address=address,
            health=health,
            gpus=gpus,
        )
        self._process = process
        self._channel = channel
        self._log_path = log_path
        self._clock = clock
        self._patience = patience
        self._on_change = on_change
        self._on_over = on_over
        self._spawned_at = spawned_at  # on the monotonic clock; None when an earlier server spawned it
        self._oom_kills = cgroup.oom_kills()
        self._unwanted = False  # somebody asked for the end
        self._cause: ReplicaError | None = None  # why the end will come, known before it came
        self._hopeless = False  # the same start would end so again
        self._start = StartWatch(clock, patience.start_timeout_s, health)
        self._over = asyncio.Event()  # nothing is left of it, or it is no longer ours
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Start to observe. Undone by the replica's end or by `leave`."""
        self._process.observe()
        self._watching = self._spawn_task(self._watch())
        self._spawn_task(self._probe())
        self._spawn_task(self._bound_start())
        if self._spawned_at is None and self.status.health is None:
            self._spawn_task(self._bound_silence(self._patience.adopt_timeout_s))
        self._spawn_task(self._bury())

    async def stop(self, grace_s: float) -> None:
        """Ask it to end, kill it after `grace_s`, return once nothing of it is left."""
        self._unwanted = True
        await self._end(grace_s)

    async def leave(self) -> None:
        """Stop observing; the process runs on."""
        await self._cancel_all_but(None)
        self._over.set()
        self._process.close()
        await self._channel.close()

    async def _watch(self) -> None:
        """Take in what the replica says, over a new connection whenever one breaks."""
        shortest, longest = _RECONNECT_S
        wait_s = shortest
        while True:
            try:
                async with aclosing(self._channel.watch()) as lines:
                    async for health in lines:
                        self._take(health)
                        wait_s = shortest
            except Unavailable:
                pass  # either it ended, which the process tells, or the probes will find it deaf
            if await self._process.exits_within(wait_s):
                return
            wait_s = min(longest, 2 * wait_s)

    def _take(self, health: Health) -> None:
        if self.status.spawn_ms is None and self._spawned_at is not None:
            spawn_ms = (self._clock.monotonic() - self._spawned_at) * 1000
            self.status = replace(self.status, spawn_ms=spawn_ms)
        before = self.status.health
        self.status = replace(self.status, health=health)
        self._start.take(health)
        if health.phase == "failed" and self._cause is None:
            self._cause = health.failure or ReplicaError("failed", Reason.ENGINE_FAILED, "the engine gave no reason")
            self._spawn_task(self._end(self._patience.failed_grace_s))
        if before is None or before.phase != health.phase:  # the counts change with every request
            self._on_change()

    async def _probe(self) -> None:
        """Ask it at intervals; one that stays silent although its process lives is killed."""
        silent = 0
        while not await self._process.exits_within(self._patience.probe_interval_s):
            log.shorten(self._log_path)
            silent = 0 if self._unwanted or await self._answers() else silent + 1
            if silent == self._patience.failed_probes:
                self._condemn(f"the replica did not answer {silent} health checks in a row and was killed")
                return

    async def _answers(self) -> bool:
        phase = self.status.health.phase if self.status.health else "starting"
        serving = phase in SERVING
        timeout_s = self._patience.probe_timeout_s if serving else self._patience.loading_probe_timeout_s
        try:
            await self._channel.health(timeout_s)
        except Unavailable:
            return False
        return True

    async def _bound_start(self) -> None:
        """Kill it once it has come no step further for so long: it would be waited for for ever."""
        while (left_s := self._start.left_s()) is not None:
            if left_s <= 0:
                self._hopeless = True
                self._condemn(self._start.told())
                return
            if await self._process.exits_within(left_s):
                return

    async def _bound_silence(self, timeout_s: float) -> None:
        if not await self._process.exits_within(timeout_s) and self.status.health is None:
            self._condemn(f"the replica did not answer the new server within {timeout_s:g} s and was killed")

    def _condemn(self, message: str) -> None:
        if self._cause is None and not self._unwanted:
            self._cause = ReplicaError("failed", Reason.TIMED_OUT, message)
        self._process.kill()

    async def _end(self, grace_s: float) -> None:
        if self._over.is_set():
            return
        self._process.terminate()
        if not await self._process.exits_within(grace_s):
            self._process.kill()
        await self._over.wait()

    async def _bury(self) -> None:
        """After the process has ended: hear its last words, clear away its group and files, and tell."""
        await self._process.exited.wait()
        self._process.kill()  # what it started and left behind
        if self._watching is not None:
            await asyncio.wait({self._watching}, timeout=_LAST_WORDS_S)
        failure = self._failure_at_end(await self._process.reap())
        if self.status.address.socket is not None:
            Path(self.status.address.socket).unlink(missing_ok=True)
            shutil.rmtree(temporary_folder(self.status.address.socket), ignore_errors=True)
        self.status = replace(self.status, alive=False, failure=failure)
        self._on_change()
        await self._cancel_all_but(asyncio.current_task())
        await self._channel.close()
        self._process.close()
        self._over.set()
        self._on_over(self)

    def _failure_at_end(self, exit: Exit) -> ReplicaFailure | None:
        if self._unwanted and self._cause is None:
            return None
        failure = failure_of(
            exit,
            said=self._cause,
            oom_killed=cgroup.oom_kills() > self._oom_kills,
            log_tail=log.tail(self._log_path, LOG_TAIL_LINES),
            at=self._clock.now(),
            on_gpus=bool(self.status.gpus),
        )
        return replace(failure, retryable=failure.retryable and not self._hopeless)

    def _spawn_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _cancel_all_but(self, kept: asyncio.Task[None] | None) -> None:
        others = [task for task in self._tasks if task is not kept]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
