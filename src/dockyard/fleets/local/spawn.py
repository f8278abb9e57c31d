"""Makes a replica's process: binds its socket, hands over the spec, and starts it. Nothing here waits for it."""

import contextlib
import errno
import os
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
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


@contextlib.contextmanager
def bound(socket_path: str) -> Iterator[socket.socket]:
    """A socket that listens before its replica's process exists: whoever connects waits for it instead of polling.

    Should what is done with it raise, nothing of it is left. `OSError`s come out as `Failed`: NO_CAPACITY when the host
    is out of memory, processes or open files, DISK_FULL, else INTERNAL.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(socket_path)
            os.chmod(socket_path, 0o600)
            listener.listen(_BACKLOG)
            yield listener
    except OSError as error:
        Path(socket_path).unlink(missing_ok=True)
        raise _translate(error) from error
    except BaseException:
        Path(socket_path).unlink(missing_ok=True)
        raise


def spawn(
    command: Sequence[str],
    spec: WorkerSpec,
    *,
    run_dir: Path,
    listener: socket.socket,
    extra: Mapping[str, str] | None = None,
) -> Process:
    """Start `command` as the replica of `spec`, with `extra` in its environment."""
    with spec_file(spec) as spec_fd, log_file(run_dir, spec.replica_id) as log_fd:
        return start_process(
            [*command, *identity(listener.fileno(), spec.replica_id, run_dir)],
            environment=environment(spec.threads, os.environ) | spec.gpu_environment() | dict(extra or {}),
            stdin=spec_fd,
            output=log_fd,
            kept=(listener.fileno(),),
        )


def start_process(
    command: Sequence[str], *, environment: Mapping[str, str], stdin: int, output: int, kept: Sequence[int]
) -> Process:
    """A process in a session of its own, which inherits `kept`."""
    popen = subprocess.Popen(
        command,
        stdin=stdin,
        stdout=output,
        stderr=output,
        pass_fds=kept,
        start_new_session=True,
        env=environment,
    )
    try:
        process = Process(psutil.Process(popen.pid))
    except OSError:
        popen.kill()
        popen.wait()
        raise
    # The process is reaped through its pidfd, by whoever holds that; Popen must neither reap nor complain.
    popen.returncode = 0
    return process


def identity(socket_fd: int, replica_id: str, run_dir: Path) -> list[str]:
    """The arguments by which a worker is found again among all processes, see `adoption.replica_of`."""
    return ["--socket-fd", str(socket_fd), "--replica-id", replica_id, "--run-dir", str(run_dir)]


@contextlib.contextmanager
def spec_file(spec: WorkerSpec) -> Iterator[int]:
    """A descriptor to read the spec from. Memory, not a pipe: a pipe holds 64 KiB and then blocks its writer."""
    fd = os.memfd_create("replica-spec")
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(msgspec.json.encode(spec))
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def log_file(run_dir: Path, name: str) -> Iterator[int]:
    fd = log.open_for_append(log.path_of(run_dir, name))
    try:
        yield fd
    finally:
        os.close(fd)


def environment(threads: int, base: Mapping[str, str]) -> dict[str, str]:
    """`base` without what is withheld, and with what keeps a replica offline and to its share of the cores."""
    return {name: value for name, value in base.items() if not _WITHHELD.match(name.upper())} | {
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",  # `-m` would put the current folder before the installed packages
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": "1",  # NumPy's own pool, made at its import: nothing here computes with NumPy
        # How long a thread spins at a barrier before it sleeps. The default, 300,000 rounds, keeps the core from the
        # very thread that is waited for once anything else runs: SmolLM2 on Transformers, 2 threads, fell from 25
        # tokens/s alone to 0.5 beside one busy process, with 10,000 rounds from 22 to 7.5 (ADR 8).
        "GOMP_SPINCOUNT": "10000",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def _translate(error: OSError) -> Failed:
    if error.errno in _OUT_OF_SOMETHING:
        message = f"the host cannot start another process ({error.strerror}); stop a replica or raise the host's limits"
        return Failed(message, reason=Reason.NO_CAPACITY)
    if error.errno == errno.ENOSPC:
        return Failed("the disk of the data directory is full; free some space on it", reason=Reason.DISK_FULL)
    what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return Failed(f"the replica's process could not be started ({what})", reason=Reason.INTERNAL)
