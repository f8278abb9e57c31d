"""Whom the kernel takes first when memory runs out: a process that only prepares or starts, before one that serves.

By itself it takes the largest, which while a new version loads is the old one that serves (proc_pid_oom_score_adj(5)).
"""

import contextlib
import os
from pathlib import Path

GOES_FIRST_BY = 500  # thousandths of the machine's memory, so far ahead of whatever is not half of it larger
_HIGHEST = 1000
_INHERITED = "DOCKYARD_OOM_SCORE_ADJ"  # in the environment, since what a process starts inherits the raised score


def go_first() -> None:
    """Have the kernel take this process, and those that it makes from now on, before others of its size.

    Anybody may raise the score of a process of his own, and lower it again to what it has inherited. Where the kernel
    does not let us, it chooses as it always would.
    """
    with contextlib.suppress(OSError):
        inherited = int(os.environ.get(_INHERITED) or _file("self").read_text())
        os.environ[_INHERITED] = str(inherited)
        _file("self").write_text(str(min(_HIGHEST, inherited + GOES_FIRST_BY)))


def go_with_others() -> None:
    """This process serves now: put its score back, and that of all in its group. Without `go_first` before: nothing."""
    inherited = os.environ.pop(_INHERITED, None)
    if inherited is None:
        return
    for pid in _group():
        with contextlib.suppress(OSError):  # it has just ended
            _file(pid).write_text(inherited)


def _group() -> list[str]:
    """Itself, and what an engine has started, if the group is its own."""
    own = os.getpid()
    if os.getpgid(0) != own:
        return ["self"]
    return [pid for pid in os.listdir("/proc") if pid.isdigit() and _group_of(int(pid)) == own]


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None  # it has just ended


def _file(pid: str) -> Path:
    return Path("/proc", pid, "oom_score_adj")
