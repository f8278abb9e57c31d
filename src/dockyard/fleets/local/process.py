"""A process held by its pidfd: signals never reach a recycled pid, and its end is an event."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable

import psutil

from dockyard.fleets.local.autopsy import Exit, exit_of

Reap = Callable[[int], Awaitable[Exit | None]]


class Process:
    """A replica's process, ours or an earlier server's. `exited` is set once it has ended; then `reap` it.

    `reap`: asks the process's parent, where that is not this one; None when the parent is gone.
    Raises `ProcessLookupError` when the process that `found` names is gone.
    """

    def __init__(self, found: psutil.Process, reap: Reap | None = None) -> None:
        try:
            self.started_at = found.create_time()
        except psutil.NoSuchProcess:
            raise ProcessLookupError(found.pid) from None
        self.pid = found.pid
        self.exited = asyncio.Event()
        self._found = found
        self._reap = reap
        self._fd = os.pidfd_open(found.pid)
        # The descriptor is of the process that `found` saw only if that is still there now.
        if not found.is_running():
            os.close(self._fd)
            raise ProcessLookupError(found.pid)

    def observe(self) -> None:
        asyncio.get_running_loop().add_reader(self._fd, self._on_exit)

    def terminate(self) -> None:
        """Ask the leader to finish and end."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process and all that it started in its group."""
        self._send(signal.SIGKILL)
        if self._owns_group():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    async def exits_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.exited.wait()
        except TimeoutError:
            return False
        return True

    async def reap(self) -> Exit:
        """How the process ended, as far as anybody can tell. Call it after `exited`, once."""
        told = await self._reap(self.pid) if self._reap is not None else None
        if told is not None:
            return told
        return self._wait()

    def close(self) -> None:
        """Let go of the process, whether it has ended or runs on."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._fd, number)

    def _wait(self) -> Exit:
        """Of an ended process, so it does not block."""
        try:
            return exit_of(os.waitid(os.P_PIDFD, self._fd, os.WEXITED))
        except ChildProcessError:
            return exit_of(None)

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        self.exited.set()

    def _owns_group(self) -> bool:
        """Whether the group of that number is still the replica's.

        While a group has members its number is given to no new process; so a different process under that number
        means that the replica's group is empty and long gone.
        """
        return self._found.is_running() or not psutil.pid_exists(self.pid)
