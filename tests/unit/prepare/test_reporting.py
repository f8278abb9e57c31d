"""Progress lines: whole percents, never back, never twice."""

import io

from dockyard.domain.job import Phase
from dockyard.errors import Reason
from dockyard.prepare.reporting import ByteProgress, Reporter, decode_line


def _told(out: io.BytesIO) -> list[tuple[str, float, str]]:
    lines = [decode_line.decode(line).progress for line in out.getvalue().splitlines()]
    return [(line.phase, line.share, line.message) for line in lines if line]


def test_a_share_never_falls_within_a_phase() -> None:
    out = io.BytesIO()
    reporter = Reporter(out)
    for share in (0.1, 0.5, 0.3, 2.0):
        reporter.progress(Phase.COPYING, share, "m")
    reporter.progress(Phase.VALIDATING, 0.0, "m")
    assert _told(out) == [("COPYING", 0.1, "m"), ("COPYING", 0.5, "m"), ("COPYING", 1.0, "m"), ("VALIDATING", 0.0, "m")]


def test_bytes_are_told_at_whole_percents() -> None:
    out = io.BytesIO()
    progress = ByteProgress(Reporter(out), Phase.COPYING, "copying", 1_000_000)
    for _ in range(1000):
        progress.add(1000)
    told = _told(out)
    assert len(told) == 101
    assert told[0] == ("COPYING", 0.0, "copying: 0.0 of 1.0 MB")
    assert told[-1] == ("COPYING", 1.0, "copying: 1.0 of 1.0 MB")


def test_bytes_may_be_a_part_of_a_phase() -> None:
    out = io.BytesIO()
    ByteProgress(Reporter(out), Phase.VALIDATING, "verifying", 10, start=0.5, end=0.9).add(5)
    assert _told(out)[0][1] == 0.7


def test_a_failure_carries_its_reason() -> None:
    out = io.BytesIO()
    Reporter(out).failure(Reason.DISK_FULL, "full")
    line = decode_line.decode(out.getvalue())
    assert line.failure
    assert (line.failure.reason, line.failure.message) == (Reason.DISK_FULL, "full")
