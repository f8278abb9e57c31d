"""Processes that a benchmark starts: their CPU time and memory as a tree, and their end by id, whatever they forked.

The program becomes the reaper of its descendants, so what a peer sends into the background stays ours to end.
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.machine import cpu_s

_PR_SET_CHILD_SUBREAPER = 36
_awaited: set[int] = set()  # those that `start` gave out and somebody waits for


class BenchFailed(Exception):
    """A benchmark, or one of its subjects, cannot go on; the message says why."""


@dataclass(frozen=True)
class Usage:
    """Of a process with all below it. PSS counts a shared page once, RSS once for each process."""

    cpu_s: float
    pss_mib: float
    rss_mib: float
    processes: int


def keep_descendants() -> None:
    """Descendants whose parent ends become children of this process instead of init's; SIGTERM unwinds like Ctrl-C."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def start(
    command: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a subject in a session of its own, its output in `log`."""
    keep_descendants()
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env=dict(environment) if environment is not None else None,
            cwd=cwd,
            start_new_session=True,
        )
    _awaited.add(process.pid)
    return process


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, timeout_s: float = 60) -> None:
    """Poll every 2 ms. Raises `BenchFailed` with the log's tail when the process ends or takes too long."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if ready():
            return
        if process.poll() is not None:
            raise BenchFailed(f"{Path(process.args[0]).name} ended with {process.returncode}:\n{tail(log)}")  # type: ignore[index]
        time.sleep(0.002)
    raise BenchFailed(f"not ready after {timeout_s:.0f} s:\n{tail(log)}")


def tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


@contextmanager
def on_one_core(pid: int) -> Iterator[None]:
    """Keep this process, and that one with all below it, on the first core that this one may have."""
    cores = os.sched_getaffinity(0)
    try:
        _keep_on({min(cores)}, pid)
        yield
    finally:
        _keep_on(cores, pid)


def _keep_on(cores: Collection[int], pid: int) -> None:
    for process in (psutil.Process(), *tree(pid)):
        with contextlib.suppress(psutil.NoSuchProcess):
            for thread in process.threads():
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(thread.id, cores)


def tree(pid: int) -> list[psutil.Process]:
    """The process and all below it; empty when it is gone. Those whose parent ended have left it: see `started_by`."""
    try:
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def started_by(marker: str) -> list[psutil.Process]:
    """Our descendants that carry `BENCH_SUBJECT=marker` in their environment, those in the background included."""
    found: list[psutil.Process] = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.environ().get("BENCH_SUBJECT") == marker:
                found.append(process)
    return found


def usage(processes: Sequence[psutil.Process]) -> Usage:
    """Of all of them together; one that is named twice counts once."""
    cpu = pss = rss = 0.0
    once = {process.pid: process for process in processes}
    for process in once.values():
        cpu += cpu_s(process)
        with contextlib.suppress(psutil.Error, OSError):
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            pss += _kib(rollup, "Pss:") / 1024
            rss += _kib(rollup, "Rss:") / 1024
    return Usage(cpu, pss, rss, len(once))


def end(process: subprocess.Popen[bytes], others: Sequence[psutil.Process] = (), patience_s: float = 30) -> int:
    """SIGTERM; after `patience_s` SIGKILL; then SIGKILL to what is left of its tree and `others`. Returns the code."""
    below = [*tree(process.pid)[1:], *others]
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _awaited.discard(process.pid)
    end_all(below)
    return process.returncode


def end_all(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL to each that still lives (the same process, not one that got its id); then no zombie stays either."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs(processes, timeout=10)
    _reap_orphans()


def _reap_orphans() -> None:
    """Orphans of subjects became our children. They are told by their session: a subject has one of its own."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error, OSError):
            foreign = child.pid not in _awaited and os.getsid(child.pid) != os.getsid(0)
            if foreign and child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)


def _kib(rollup: str, field: str) -> int:
    return next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith(field)), 0)
