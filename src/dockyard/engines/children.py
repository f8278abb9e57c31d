"""An engine's processes and its replica: neither outlives the other, however that ends."""

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator
from typing import NoReturn

EXIT_ENGINE_LOST = 4
_PR_SET_PDEATHSIG = 1  # prctl(2)
_REPLICA = "DOCKYARD_REPLICA_PID"


@contextlib.contextmanager
def known_to_children() -> Iterator[None]:
    """The processes that are made inside this know whose they are."""
    os.environ[_REPLICA] = str(os.getpid())
    try:
        yield
    finally:
        del os.environ[_REPLICA]


def end_with_replica() -> None:
    """In such a process: have the kernel kill it once the replica is gone, else it might wait for that for ever.

    In any other process, the replica's included, and further below, where a library looks after its own: nothing.
    """
    replica = int(os.environ.get(_REPLICA, "0"))
    if os.getppid() == replica:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != replica:  # it has ended before the kernel knew
            os.kill(os.getpid(), signal.SIGKILL)


def end_without_engine() -> NoReturn:
    """A replica that has lost its engine must not look like one: it ends at once, and its requests go elsewhere."""
    os._exit(EXIT_ENGINE_LOST)
