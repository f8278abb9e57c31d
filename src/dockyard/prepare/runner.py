"""The server's side of preparation: one process per task, watched to its end. Imports nothing heavy."""

import asyncio
import errno
import os
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

import msgspec
import structlog
from msgspec.structs import replace

from dockyard import __version__
from dockyard.domain.spec import EngineName
from dockyard.engine_builds import without_gpus
from dockyard.errors import Failed, Reason
from dockyard.prepare.artifacts import Artifacts, clean_scratch
from dockyard.prepare.faults import without_paths
from dockyard.prepare.manifest import converted_key, converter_version
from dockyard.prepare.reporting import Line, decode_line
from dockyard.protocols.preparation import HubSource, ImportTask, Outcome, Progress, Task

_log = structlog.get_logger()

OnProgress = Callable[[Progress], Awaitable[None]]

# What a replica of the engine imports, the engine's own package last; `echo` needs nothing. An engine that is not here
# has an environment of its own.
_PACKAGES: dict[str, tuple[str, ...]] = {
    EngineName.TRANSFORMERS: ("torch", "transformers"),
    EngineName.CTRANSLATE2: ("ctranslate2",),
    EngineName.ECHO: (),
}

_MORE_LIVES = 2  # of a download; what kills it every time, such as too little memory, kills the third one, too

_LINE_LIMIT = 1 << 20  # bytes; a model card is a few hundred
_TAIL_LINES = 40
_TAIL_LINE_LENGTH = 400


class ProcessPreparer:
    """Implements `protocols.preparation.Preparer` with `python -m dockyard.prepare`.

    `artifacts_dir` and `scratch_dir` lie on one file system. A task's own folders are filled in here: whatever it
    says, it works in a new folder below `scratch_dir`, which is gone when the call ends, however it ends. `elsewhere`
    tells the version of an engine that has an environment of its own, `elsewhere_without_gpus` why it cannot use GPUs.
    """

    def __init__(
        self,
        artifacts_dir: Path | str,
        scratch_dir: Path | str,
        python: str = sys.executable,
        elsewhere: Callable[[str], str | None] = lambda engine: None,
        elsewhere_without_gpus: Callable[[str], str | None] = lambda engine: None,
    ) -> None:
        self._artifacts = Artifacts(Path(artifacts_dir).absolute())
        self._scratch_dir = Path(scratch_dir).absolute()
        self._python = python
        self._elsewhere = elsewhere
        self._elsewhere_without_gpus = elsewhere_without_gpus
        self._endings: set[asyncio.Task[None]] = set()

    async def run(self, task: Task, on_progress: OnProgress) -> Outcome:
        """Run `task` to its end. Raises `Failed` with its reason and the last lines of the process.

        Cancelling kills the process and removes what it began; artifacts that were finished before stay. When the
        process of a download dies without a word, another one goes on with what it fetched.
        """
        more = _MORE_LIVES if isinstance(task, ImportTask) and isinstance(task.source, HubSource) else 0
        while True:
            try:
                return await self._run_once(task, on_progress)
            except _Died as died:
                if not more:
                    raise
                more -= 1
                _log.warning("the process of a download died; another one goes on with it", message=died.message)

    async def _run_once(self, task: Task, on_progress: OnProgress) -> Outcome:
        folder = self._scratch_dir / uuid4().hex
        try:
            folder.mkdir(parents=True)
            process = await self._spawn()
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            reason = Reason.DISK_FULL if error.errno == errno.ENOSPC else Reason.INTERNAL
            raise Failed(f"the prepare process cannot be started: {error.strerror}", reason=reason) from error
        try:
            return await _converse(process, self._placed(task, folder), on_progress)
        finally:
            await self._end(process, folder)

    def cached(self, source_key: str, engine: str, quantization: str) -> str | None:
        """The key of what `ConvertTask` would make, if it and its source are finished and untouched.

        Engines without a converter load the source.
        """
        key: str | None = source_key
        if engine == EngineName.CTRANSLATE2:
            converter = converter_version(engine)
            key = converter and converted_key(source_key, engine, quantization, converter)
        fresh = key and self._artifacts.is_untouched(key) and self._artifacts.is_untouched(source_key)
        return key if fresh else None

    def installed(self, engine: str) -> bool:
        return self.version(engine) is not None

    def version(self, engine: str) -> str | None:
        packages = _PACKAGES.get(engine)
        if packages is None:
            return self._elsewhere(engine)
        if any(find_spec(name) is None for name in packages):
            return None
        return version(packages[-1]) if packages else __version__

    def without_gpus(self, engine: str) -> str | None:
        return without_gpus(engine) if engine in _PACKAGES else self._elsewhere_without_gpus(engine)

    def artifact_dir(self, key: str) -> str:
        return str(self._artifacts.folder(key))

    async def stored(self) -> dict[str, int]:
        """The artifacts whose files lie here: key → bytes."""
        return await asyncio.to_thread(self._artifacts.stored)

    async def discard(self, key: str) -> int:
        """Remove an artifact in one step; returns its bytes, 0 if it is not there. They are freed in the background.

        What a server that dies by then leaves of it goes with the scratch folders.
        """
        buried = await asyncio.to_thread(self._artifacts.bury, key, self._scratch_dir)
        if buried is None:
            return 0
        grave, size_bytes = buried
        self._in_background(asyncio.to_thread(shutil.rmtree, grave, ignore_errors=True))
        return size_bytes

    async def clean_scratch(self) -> None:
        """Remove the scratch folders whose process is dead. Called once, before the first task."""
        await asyncio.to_thread(clean_scratch, self._scratch_dir)

    async def _spawn(self) -> Process:
        # -P: a module that lies in the server's working directory must not be imported in place of a library.
        return await asyncio.create_subprocess_exec(
            self._python, "-P", "-m", "dockyard.prepare", "--data-dir", str(self._artifacts.root.parent),
            stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=_LINE_LIMIT, start_new_session=True, env=_environment(),
        )  # fmt: skip

    def _placed(self, task: Task, folder: Path) -> Task:
        return replace(task, artifacts_dir=str(self._artifacts.root), scratch_dir=str(folder))

    async def _end(self, process: Process, folder: Path) -> None:
        """Leave neither process nor scratch, also when this is cancelled in turn."""
        await asyncio.shield(self._in_background(_end_process(process, folder)))

    def _in_background(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)
        return task


async def _converse(process: Process, task: Task, on_progress: OnProgress) -> Outcome:
    """Hand the task over, pass the progress on, and return or raise what the process says last."""
    tail = _Tail()
    reading = asyncio.create_task(tail.read(process))
    try:
        last = await _last_line(process, task, on_progress)
        if last and last.result:
            return last.result
        await reading
    finally:
        reading.cancel()
    if last and last.failure:
        if last.failure.trace:
            _log.error("a prepare process failed", reason=last.failure.reason, trace=last.failure.trace)
        raise Failed(last.failure.message, reason=last.failure.reason, log_tail=tail.lines)
    raise _silent_end(await process.wait(), tail.lines)


async def _last_line(process: Process, task: Task, on_progress: OnProgress) -> Line | None:
    """The result or the failure; None if the process ended without a word. Standard input stays open meanwhile."""
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the prepare process was started without pipes")
    try:
        process.stdin.write(msgspec.json.encode(task) + b"\n")
        await process.stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        return None
    async for text in process.stdout:
        line = decode_line.decode(text)
        if line.progress is None:
            return line
        await on_progress(line.progress)
    return None


class _Died(Failed):
    """The process ended without a word."""


def _silent_end(code: int, tail: tuple[str, ...]) -> _Died:
    if code == -signal.SIGKILL:
        return _Died(
            "the process was killed by signal 9, as the kernel does when memory runs out; free memory on the server "
            "or choose a smaller model, then try again",
            reason=Reason.OUT_OF_MEMORY,
            log_tail=tail,
        )
    how = f"was killed by signal {-code} ({_signal_name(-code)})" if code < 0 else f"ended early with code {code}"
    return _Died(
        f"the process {how}; its last lines tell more, and trying again is safe",
        reason=Reason.CONVERSION_FAILED,
        log_tail=tail,
    )


def _signal_name(number: int) -> str:
    return signal.strsignal(number) or "unknown"


async def _end_process(process: Process, folder: Path) -> None:
    """Kill the whole group, so that nothing that a library started is left, and remove the scratch folder."""
    if process.returncode is None:  # once reaped, its number may be another's
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    if process.stdin:
        process.stdin.close()
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _environment() -> dict[str, str]:
    """Ours without the server's settings: the process needs no admin key and no database."""
    return {name: value for name, value in os.environ.items() if not name.startswith("DOCKYARD_")}


class _Tail:
    """The last lines of standard error, without the server's paths and however long the lines are."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_TAIL_LINES)
        self._open = b""

    @property
    def lines(self) -> tuple[str, ...]:
        return (*self._lines, *self._told([self._open]))

    async def read(self, process: Process) -> None:
        while process.stderr and (chunk := await process.stderr.read(1 << 16)):
            # Progress bars end their lines with a carriage return.
            *complete, self._open = (self._open + chunk).replace(b"\r", b"\n").split(b"\n")
            self._open = self._open[-_TAIL_LINE_LENGTH:]
            self._lines.extend(self._told(complete))

    @staticmethod
    def _told(lines: list[bytes]) -> list[str]:
        return [without_paths(line.decode("utf-8", "replace"))[:_TAIL_LINE_LENGTH] for line in lines if line.strip()]
