"""What the child tells the server: one JSON line per message, and progress that never goes back."""

import threading
from typing import BinaryIO

import msgspec

from dockyard.domain.job import Phase
from dockyard.errors import Reason
from dockyard.protocols.preparation import Outcome, Progress


class FailureLine(msgspec.Struct, kw_only=True):
    """Why a task failed: a member of `errors.Reason` and one sentence. `trace` is for the server's log only."""

    reason: Reason
    message: str
    trace: str = ""


class Line(msgspec.Struct, omit_defaults=True):
    """One line of the child's output; exactly one field is set."""

    progress: Progress | None = None
    result: Outcome | None = None
    failure: FailureLine | None = None


decode_line = msgspec.json.Decoder(Line)


class Reporter:
    """Writes lines to `out`. Safe to call from several threads."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._last: tuple[Phase, str, int] | None = None

    def progress(self, phase: Phase, share: float, message: str) -> None:
        """Say how much of `phase` is done. Only whole percents are sent, and never one below the last."""
        percent = int(100 * max(0.0, min(1.0, share)))
        with self._lock:
            if self._last and self._last[0] is phase:
                percent = max(percent, self._last[2])
            told = (phase, message, percent)
            if told == self._last:
                return
            self._last = told
            self._write(Line(progress=Progress(phase=str(phase), share=percent / 100, message=message)))

    def result(self, outcome: Outcome) -> None:
        with self._lock:
            self._write(Line(result=outcome))

    def failure(self, reason: Reason, message: str, trace: str = "") -> None:
        with self._lock:
            self._write(Line(failure=FailureLine(reason=reason, message=message, trace=trace)))

    def _write(self, line: Line) -> None:
        self._out.write(msgspec.json.encode(line) + b"\n")
        self._out.flush()


class PartReporter(Reporter):
    """Tells of a part of each phase: what it calls 0 to 1 is `start` to `end` of the whole."""

    def __init__(self, whole: Reporter, start: float, end: float) -> None:
        self._whole = whole
        self._start, self._end = start, end

    def progress(self, phase: Phase, share: float, message: str) -> None:
        share = max(0.0, min(1.0, share))
        self._whole.progress(phase, self._start + (self._end - self._start) * share, message)

    def result(self, outcome: Outcome) -> None:
        self._whole.result(outcome)

    def failure(self, reason: Reason, message: str, trace: str = "") -> None:
        self._whole.failure(reason, message, trace)


class ByteProgress:
    """Turns bytes done into a phase's progress. `start` and `end` bound the share that these bytes are of the phase.

    It is told in `steps`: a hundred lines at most, however fast it goes, unless the way is long.
    """

    def __init__(
        self,
        reporter: Reporter,
        phase: Phase,
        verb: str,
        total_bytes: int,
        *,
        start: float = 0.0,
        end: float = 1.0,
        steps: int = 100,
    ) -> None:
        self._reporter = reporter
        self._phase = phase
        self._verb = verb
        self._total = max(1, total_bytes)
        self._start, self._end = start, end
        self._steps = steps
        self._done = 0
        self._told = -1

    def add(self, count: int) -> None:
        """Tell of `count` bytes more, if that is a step; below zero: so many have to be done again."""
        self._done += count
        share = self._done / self._total
        step = int(self._steps * share)
        if step == self._told:
            return
        self._told = step
        self._reporter.progress(
            self._phase,
            self._start + (self._end - self._start) * share,
            f"{self._verb}: {_mb(min(self._done, self._total))} of {_mb(self._total)} MB",
        )


def _mb(count: int) -> str:
    return f"{count / 1e6:.0f}" if count >= 10_000_000 else f"{count / 1e6:.1f}"
