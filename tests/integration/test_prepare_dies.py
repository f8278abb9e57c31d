"""However a prepare process ends, nothing half-written is seen and nothing is left behind."""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec
import pytest
from tests.integration.prepare_rig import T5_DATE, Midway, Rig, large_model

from dockyard.errors import Failed, Reason
from dockyard.oom_score import GOES_FIRST_BY
from dockyard.protocols.preparation import ImportTask, PathSource, Progress


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "data")


@contextmanager
def _stuck_midway(rig: Rig, source: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path, IO[bytes]]]:
    """A process that is copying and cannot finish: its output goes to a pipe of one page, of which two lines are read.

    A copy tells a hundred lines of about a hundred bytes, so it waits for a reader before it is half done.
    """
    folder = rig.scratch / "run"
    folder.mkdir(parents=True)
    task = ImportTask(source=PathSource(path=str(source)), artifacts_dir=str(rig.artifacts), scratch_dir=str(folder))
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    command = [sys.executable, "-P", "-m", "dockyard.prepare", "--data-dir", str(rig.artifacts.parent)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=writing, stderr=subprocess.DEVNULL) as process,
        os.fdopen(reading, "rb", buffering=0) as output,
    ):
        os.close(writing)
        assert process.stdin
        process.stdin.write(msgspec.json.encode(task) + b"\n")
        process.stdin.flush()
        try:
            assert b"looking" in _line(output)
            assert b"copying" in _line(output)
            yield process, folder, output
        finally:
            process.kill()
            process.wait()


def _line(output: IO[bytes]) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        piece = output.read(1)
        assert piece, "the process ended before its time"
        line += piece
    return line


async def test_killed_in_mid_write_nothing_is_visible_and_the_next_run_succeeds(rig: Rig, tmp_path: Path) -> None:
    with _stuck_midway(rig, large_model(tmp_path / "large")) as (process, folder, _):
        assert (folder / "imported").is_dir()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert rig.stored == set()
    assert list((folder / "imported").iterdir())  # what a dead server leaves
    await rig.preparer.clean_scratch()
    assert rig.in_scratch == []
    assert not (await rig.import_model(T5_DATE)).reused


async def test_when_memory_runs_out_it_goes_before_replicas(rig: Rig, tmp_path: Path) -> None:
    with _stuck_midway(rig, large_model(tmp_path / "large")) as (process, _, _):
        own = int(Path("/proc/self/oom_score_adj").read_text())
        its = int(Path("/proc", str(process.pid), "oom_score_adj").read_text())
    assert its == min(1000, own + GOES_FIRST_BY)


async def test_scratch_of_a_living_process_is_not_cleaned(rig: Rig, tmp_path: Path) -> None:
    with _stuck_midway(rig, large_model(tmp_path / "large")) as (_, folder, _):
        await rig.preparer.clean_scratch()
        assert folder.exists()


def test_it_ends_when_its_server_does(rig: Rig, tmp_path: Path) -> None:
    with _stuck_midway(rig, large_model(tmp_path / "large")) as (process, _, _):
        assert process.stdin
        process.stdin.close()  # as the kernel does for a server that was killed
        assert process.wait() != 0
    assert rig.stored == set()


async def test_cancelling_kills_the_process_and_removes_its_scratch(rig: Rig, tmp_path: Path) -> None:
    midway = Midway()
    running = asyncio.create_task(rig.import_model(large_model(tmp_path / "large"), midway))
    await midway.reached.wait()
    (child,) = rig.children()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not child.is_running()
    assert rig.stored == set()
    assert rig.in_scratch == []


@pytest.mark.parametrize(
    ("number", "reason", "words"),
    [
        (signal.SIGKILL, Reason.OUT_OF_MEMORY, "killed by signal 9"),
        (signal.SIGTERM, Reason.CONVERSION_FAILED, "signal 15"),
    ],
)
async def test_a_signal_death_is_told(
    rig: Rig, tmp_path: Path, number: signal.Signals, reason: Reason, words: str
) -> None:
    async def kill(progress: Progress) -> None:
        for child in rig.children():
            child.send_signal(number)

    with pytest.raises(Failed, match=words) as caught:
        await rig.import_model(large_model(tmp_path / "large"), kill)
    assert caught.value.reason is reason
    assert rig.stored == set()
    assert rig.in_scratch == []


async def test_a_listener_that_fails_ends_the_process(rig: Rig, tmp_path: Path) -> None:
    async def fail(progress: Progress) -> None:
        raise ValueError("the listener")

    with pytest.raises(ValueError, match="the listener"):
        await rig.import_model(large_model(tmp_path / "large"), fail)
    assert rig.children() == []
    assert rig.in_scratch == []
