"""The prepare process: one task in on standard input, JSON lines out on standard output, then the end.

It ends at once when its standard input is closed, which is what the death of the server that asked looks like.
"""

import argparse
import ctypes
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import BinaryIO

import msgspec

from dockyard import oom_score
from dockyard.errors import DockyardError
from dockyard.prepare import network
from dockyard.prepare.artifacts import ScratchLock
from dockyard.prepare.faults import explain
from dockyard.prepare.reporting import Reporter
from dockyard.protocols.preparation import ConvertTask, ExportTask, HubSource, ImportTask, Outcome, Task

_LONGEST_TRACE = 20_000  # characters

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dockyard.prepare", description=__doc__)
    parser.add_argument("--data-dir", required=True, help="tells the processes of one server from another's")
    parser.parse_args()
    _die_with_parent()
    oom_score.go_first()
    reporter = Reporter(_take_over_stdout())
    task = msgspec.json.decode(sys.stdin.buffer.readline(), type=Task)
    network.prepare_environment(online=isinstance(task, ImportTask) and isinstance(task.source, HubSource))
    threading.Thread(target=_end_with_stdin, name="stdin", daemon=True).start()
    lock = ScratchLock(Path(task.scratch_dir))
    try:
        reporter.result(_perform(task, reporter))
    except BaseException as error:  # noqa: BLE001 - the last word of the process, whatever went wrong
        trace = ""
        if not isinstance(error, DockyardError):  # a refusal of ours says all in its message
            # Standard error is shown to clients, so it has the error only; the stack is for the server's log.
            sys.stderr.writelines(traceback.format_exception_only(error))
            trace = traceback.format_exc()[-_LONGEST_TRACE:]
        reporter.failure(*explain(error, task), trace)
        return 1
    finally:
        lock.release()
    return 0


def _perform(task: Task, reporter: Reporter) -> Outcome:
    # Each task imports what it alone needs.
    match task:
        case ImportTask():
            from dockyard.prepare.import_task import run_import

            return run_import(task, reporter)
        case ConvertTask():
            from dockyard.prepare.convert_task import run_convert

            return run_convert(task, reporter)
        case ExportTask():
            from dockyard.prepare.export_task import run_export

            return run_export(task, reporter)


def _take_over_stdout() -> BinaryIO:
    """Keep standard output for our lines; what libraries print goes to standard error."""
    ours = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return ours


def _die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies: native code that holds the interpreter's lock would keep
    the thread that watches standard input waiting.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(3)


if __name__ == "__main__":
    # Not sys.exit: the thread that reads standard input must not be waited for, nor what libraries left running.
    code = main()
    sys.stderr.flush()
    os._exit(code)
