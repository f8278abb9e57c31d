"""Makes a replica's process: binds its socket, hands over the spec, and starts it. Nothing here waits for it."""

import errno
import os
import re
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import psutil

from dockyard.errors import Failed, Reason
from dockyard.fleets.local import log
from dockyard.fleets.local.process import Process
from dockyard.protocols.generation import WorkerSpec

_BACKLOG = 512
_OUT_OF_SOMETHING = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)

# What a replica has no use for: the server's settings and any secret of the shell that the server was started from.
_WITHHELD = re.compile(r"^(DOCKYARD_.*|PG.*|.*(_|^)(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS|DATABASE_URL|DSN))$")


def spawn(command: Sequence[str], spec: WorkerSpec, *, run_dir: Path, socket_path: str) -> Process:
    """Start `command` as the replica of `spec`.

    The socket listens before the process exists, so whoever connects waits for the replica instead of polling for it.
    Raises `Failed`: NO_CAPACITY when the host is out of memory, processes or open files, else INTERNAL.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(socket_path)
            os.chmod(socket_path, 0o600)
            listener.listen(_BACKLOG)
            return _start(command, spec, run_dir, listener.fileno())
    except OSError as error:
        Path(socket_path).unlink(missing_ok=True)
        raise _translate(error, command[0]) from error


def environment(threads: int, base: Mapping[str, str]) -> dict[str, str]:
    """`base` without what is withheld, and with what keeps a replica offline and to its share of the cores."""
    return {name: value for name, value in base.items() if not _WITHHELD.match(name.upper())} | {
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",  # `-m` would put the current folder before the installed packages
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        # How long a thread spins at a barrier before it sleeps. The default, 300,000 rounds, keeps the core from the
        # very thread that is waited for once anything else runs: SmolLM2 on Transformers, 2 threads, fell from 25
        # tokens/s alone to 0.5 beside one busy process, with 10,000 rounds from 22 to 7.5 (ADR 8).
        "GOMP_SPINCOUNT": "10000",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def _translate(error: OSError, python: str) -> Failed:
    if error.errno in _OUT_OF_SOMETHING:
        message = f"the host cannot start another process ({error.strerror}); stop a replica or raise the host's limits"
        return Failed(message, reason=Reason.NO_CAPACITY)
    if error.errno == errno.ENOSPC:
        return Failed("the disk of the data directory is full; free some space on it", reason=Reason.DISK_FULL)
    message = f"the replica's process could not be started with {python}: {error.strerror}"
    return Failed(message, reason=Reason.INTERNAL)


def _start(command: Sequence[str], spec: WorkerSpec, run_dir: Path, socket_fd: int) -> Process:
    spec_fd = _readable(msgspec.json.encode(spec))
    log_fd = log.open_for_append(log.path_of(run_dir, spec.replica_id))
    arguments = ["--socket-fd", str(socket_fd), "--replica-id", spec.replica_id, "--run-dir", str(run_dir)]
    try:
        popen = subprocess.Popen(
            [*command, *arguments],
            stdin=spec_fd,
            stdout=log_fd,
            stderr=log_fd,
            pass_fds=(socket_fd,),
            start_new_session=True,
            env=environment(spec.threads, os.environ),
        )
    finally:
        os.close(spec_fd)
        os.close(log_fd)
    try:
        process = Process(psutil.Process(popen.pid))
    except OSError:
        popen.kill()
        popen.wait()
        raise
    # The process is reaped through its pidfd, by whoever holds that; Popen must neither reap nor complain.
    popen.returncode = 0
    return process


def _readable(content: bytes) -> int:
    """A descriptor to read `content` from. Memory, not a pipe: a pipe holds 64 KiB and then blocks its writer."""
    fd = os.memfd_create("replica-spec")
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
