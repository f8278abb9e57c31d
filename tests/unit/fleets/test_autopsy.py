"""Every way a replica can end has its reason and its sentence."""

import signal
from datetime import UTC, datetime

import pytest

from dockyard.errors import Reason
from dockyard.fleets.local.autopsy import Exit, failure_of
from dockyard.protocols.generation import ReplicaError

AT = datetime(2026, 2, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("exit", "oom_killed", "log_tail", "reason", "words"),
    [
        (Exit(code=3), False, (), Reason.ENGINE_CRASHED, "ended with exit code 3"),
        (Exit(code=0), False, (), Reason.ENGINE_CRASHED, "ended by itself"),
        (Exit(code=0), False, ("MemoryError",), Reason.ENGINE_CRASHED, "ended by itself"),
        (Exit(signal=signal.SIGSEGV), False, (), Reason.ENGINE_CRASHED, "signal 11 (SIGSEGV)"),
        (Exit(signal=signal.SIGRTMIN + 1), False, (), Reason.ENGINE_CRASHED, "signal 35 (unnamed)"),
        (Exit(signal=signal.SIGKILL), False, (), Reason.ENGINE_CRASHED, "out-of-memory killer does that"),
        (Exit(signal=signal.SIGKILL), True, (), Reason.OUT_OF_MEMORY, "the kernel killed"),
        (Exit(signal=signal.SIGSEGV), True, (), Reason.ENGINE_CRASHED, "signal 11"),  # another process was the victim
        (Exit(signal=signal.SIGABRT), False, ("terminate: std::bad_alloc",), Reason.OUT_OF_MEMORY, "SIGABRT"),
        (Exit(), True, (), Reason.OUT_OF_MEMORY, "the kernel killed"),
        (Exit(), False, (), Reason.ENGINE_CRASHED, "unknown since the process that had started it was gone"),
    ],
)
def test_an_end_nobody_announced(
    exit: Exit, oom_killed: bool, log_tail: tuple[str, ...], reason: Reason, words: str
) -> None:
    failure = failure_of(exit, said=None, oom_killed=oom_killed, log_tail=log_tail, at=AT)

    assert failure.reason is reason
    assert words in failure.message
    assert failure.retryable
    assert failure.log_tail == log_tail
    assert failure.at == AT


@pytest.mark.parametrize(
    ("line", "reason", "retryable"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", Reason.OUT_OF_MEMORY, True),
        ("CUDA error: no kernel image is available for execution", Reason.ENGINE_CANNOT_USE_GPU, False),
        ("CUDA driver version is insufficient for CUDA runtime version", Reason.GPU_DRIVER_TOO_OLD, False),
        ("CUDA error: an illegal memory access was encountered", Reason.GPU_FAILED, True),
    ],
)
def test_the_last_words_of_cuda_count_on_a_gpu_only(line: str, reason: Reason, retryable: bool) -> None:
    tail = ("could not load libcudnn: goes on without", line, "at frame 1")
    exit = Exit(signal=signal.SIGABRT)
    failure = failure_of(exit, said=None, oom_killed=False, log_tail=tail, at=AT, on_gpus=True)
    assert (failure.reason, failure.retryable) == (reason, retryable)
    assert "SIGABRT" in failure.message
    elsewhere = failure_of(exit, said=None, oom_killed=False, log_tail=tail[:1], at=AT)
    assert elsewhere.reason is Reason.ENGINE_CRASHED


@pytest.mark.parametrize(
    ("told", "reason", "retryable"),
    [
        ("ENGINE_NOT_INSTALLED", Reason.ENGINE_NOT_INSTALLED, False),
        ("ARTIFACT_CORRUPT", Reason.ARTIFACT_CORRUPT, False),
        ("ENGINE_FAILED", Reason.ENGINE_FAILED, False),
        ("OUT_OF_MEMORY", Reason.OUT_OF_MEMORY, True),
        ("TIMED_OUT", Reason.TIMED_OUT, True),
        ("A_WORD_OF_TOMORROW", Reason.ENGINE_FAILED, False),
    ],
)
def test_what_the_replica_said_goes_before_how_it_ended(told: str, reason: Reason, retryable: bool) -> None:
    said = ReplicaError(kind="failed", reason=told, message="because")

    failure = failure_of(Exit(signal=signal.SIGKILL), said=said, oom_killed=True, log_tail=(), at=AT)

    assert (failure.reason, failure.message, failure.retryable) == (reason, "because", retryable)
