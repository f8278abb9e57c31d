"""The engines that replicas share on GPUs: which process is one, and its end should it not end by itself."""

import contextlib
import os
import signal
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

import psutil

from dockyard.engines.groups import MODULE, socket_on_gpus

_SOCKETS = Path("/proc/net/unix")
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED


class SharedEngines:
    """Implements `gpus.Engines`. `folder` holds their sockets."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[Path, psutil.Process] = {}

    def find(self, gpu_ids: Sequence[str]) -> int | None:
        """As long as its socket is open the engine lives: that is bound before its process begins, and goes with it.

        Which process has it open is asked once: every question waits in the socket's queue until the engine has begun.
        """
        path = socket_on_gpus(self._folder, gpu_ids)
        if not _is_open(path):
            self._known.pop(path, None)
            return None
        known = self._known.get(path)
        if known is None or not known.is_running():
            known = _listener(path)
            if known is None:
                return 0
            self._known[path] = known
        return known.pid

    def kill(self, pid: int) -> None:
        """With all that it has started; unless the number is another process's by now."""
        if any(process.pid == pid and process.is_running() for process in self._known.values()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)


def _is_open(path: Path) -> bool:
    name = f" {path}"
    with _SOCKETS.open(errors="replace") as lines:
        return any(line.rstrip("\n").endswith(name) for line in lines)


def _listener(path: Path) -> psutil.Process | None:
    """None while that is still the replica that starts the engine, whose libraries are being imported."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError, psutil.Error):
        probe.setblocking(False)
        probe.connect(str(path))
        pid: int = _CREDENTIALS.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[0]
        process = psutil.Process(pid)
        return process if MODULE in process.cmdline() else None
    return None
