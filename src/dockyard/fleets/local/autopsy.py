"""Why a replica ended, from what its process left behind. Pure."""

import os
import signal
from dataclasses import dataclass
from datetime import datetime

from dockyard.domain.replica import ReplicaFailure
from dockyard.engines.gpu_failures import GpuFailure, gpu_failure
from dockyard.errors import Reason
from dockyard.protocols.generation import ReplicaError

# The same start would fail in the same way.
_FINAL = frozenset(
    {
        Reason.ENGINE_NOT_INSTALLED,
        Reason.ENGINE_CANNOT_USE_GPU,
        Reason.GPU_DRIVER_TOO_OLD,
        Reason.ARTIFACT_CORRUPT,
        Reason.ENGINE_FAILED,
    }
)

# What libraries write when an allocation fails and they give up without help from the kernel.
_OUT_OF_MEMORY_WORDS = ("std::bad_alloc", "MemoryError", "Cannot allocate memory", "out of memory")


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: with a code, or by a signal; neither where it was no child of ours and nobody can tell."""

    code: int | None = None
    signal: int | None = None


def exit_of(result: os.waitid_result | None) -> Exit:
    """`waitid`'s answer; None for a process that was not ours to wait for."""
    if result is None:
        return Exit()
    if result.si_code == os.CLD_EXITED:
        return Exit(code=result.si_status)
    return Exit(signal=result.si_status)


def failure_of(
    exit: Exit,
    *,
    said: ReplicaError | None,
    oom_killed: bool,
    log_tail: tuple[str, ...],
    at: datetime,
    on_gpus: bool = False,
) -> ReplicaFailure:
    """The failure to record. `said`: what the replica itself told before it ended, which goes before all else.

    Only of a replica that was `on_gpus` the words of CUDA in its log mean anything: libraries also tell what they miss
    and do without.
    """
    if said is not None:
        reason = reason_named(said.reason)
        message = said.message
    else:
        reason, message = _judge(exit, oom_killed, log_tail, on_gpus)
    return ReplicaFailure(reason=reason, message=message, at=at, log_tail=log_tail, retryable=reason not in _FINAL)


def reason_named(name: str) -> Reason:
    """A replica's word for what went wrong; a newer or foreign worker may know words that we do not."""
    return Reason(name) if name in Reason.__members__ else Reason.ENGINE_FAILED


def _judge(exit: Exit, oom_killed: bool, log_tail: tuple[str, ...], on_gpus: bool) -> tuple[Reason, str]:
    unseen = exit.code is None and exit.signal is None
    if oom_killed and (unseen or exit.signal == signal.SIGKILL):
        return Reason.OUT_OF_MEMORY, (
            "the kernel killed the replica's process because memory ran out; "
            "deploy with int8_float16, a smaller maxBatchSize or fewer replicas, or on a machine with more memory"
        )
    if exit.signal == signal.SIGKILL:
        return Reason.ENGINE_CRASHED, (
            "the replica's process was killed by signal 9 (SIGKILL); "
            "the kernel's out-of-memory killer does that when memory runs out"
        )
    if on_gpus and exit.code != 0 and (known := _last_gpu_failure(log_tail)):
        return known.reason, f"the replica's process {_ended(exit)}; {known.mend}"
    if exit.code != 0 and any(word in line for word in _OUT_OF_MEMORY_WORDS for line in log_tail):
        return Reason.OUT_OF_MEMORY, (
            f"the replica's process ran out of memory and {_ended(exit)}; "
            "deploy with int8_float16, a smaller maxBatchSize or fewer replicas, or on a machine with more memory"
        )
    return Reason.ENGINE_CRASHED, f"the replica's process {_ended(exit)}; the last lines of its log tell more"


def _last_gpu_failure(log_tail: tuple[str, ...]) -> GpuFailure | None:
    """What came last is what ended it."""
    return next((known for line in reversed(log_tail) if (known := gpu_failure(line))), None)


def _ended(exit: Exit) -> str:
    if exit.signal is not None:
        return f"was killed by signal {exit.signal} ({_signal_name(exit.signal)})"
    if exit.code is None:
        return "ended, how is unknown since the process that had started it was gone"
    if exit.code == 0:
        return "ended by itself (exit code 0), though nobody had asked it to"
    return f"ended with exit code {exit.code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return "unnamed"
