"""The most memory that a process had.

The kernel keeps the largest resident size of a process (VmHWM), so no moment is missed. Pages of libraries count in
full, as for the first replica of a host; whoever maps the same files later, or is forked from a warm spare, shares them
and takes less. Weights that are mapped from their file count: the engine reads all of them at every step.
Of an engine with several processes the kernel keeps no such number: there the sum is looked at, many times.
"""

import contextlib
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.processes import tree

_EVERY_S = 0.02
_TREE_EVERY_S = 0.5  # the kernel walks all pages of a process for each look


@dataclass(frozen=True, slots=True)
class Peak:
    """Bytes. `anonymous` and `files` are the parts of the fullest sample: what was allocated, what was mapped."""

    total: int
    anonymous: int
    files: int


class _Watch(ABC):
    """`with PeakWatch(pid) as watch: …`; then `watch.peak`. It looks on a thread of its own, and at both ends."""

    peak: Peak

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_looking, name="peak", daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        self._look()
        self.peak = self._found()

    def _keep_looking(self) -> None:
        while not self._over.wait(self._every_s):
            self._look()

    @abstractmethod
    def _look(self) -> None: ...

    @abstractmethod
    def _found(self) -> Peak: ...


class PeakWatch(_Watch):
    """Of one process, since it began."""

    def __init__(self, pid: int) -> None:
        super().__init__(_EVERY_S)
        self._status = Path(f"/proc/{pid}/status")
        self._fullest: dict[str, int] = {}

    def _look(self) -> None:
        with contextlib.suppress(OSError):  # it has ended
            seen = self._fields()
            if seen["VmRSS"] > self._fullest.get("VmRSS", 0):
                self._fullest = seen

    def _found(self) -> Peak:
        return Peak(self._fields()["VmHWM"], self._fullest["RssAnon"], self._fullest["RssFile"])

    def _fields(self) -> dict[str, int]:
        """The lines `Name: 12 kB` of the kernel's account, in bytes."""
        lines = (line.split() for line in self._status.read_text().splitlines())
        return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[2:] == ["kB"]}


class TreeWatch(_Watch):
    """Of the process and all below it: the most that they had together while it watched.

    A mapped file counts as the process counts that has most of it, whoever else on the machine maps it, too.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(_TREE_EVERY_S)
        self._pid = pid
        self._fullest = (0, 0)

    def _look(self) -> None:
        anonymous, files = 0, dict[str, int]()
        for process in tree(self._pid):
            with contextlib.suppress(OSError):  # it has ended
                own, mapped = _mappings(process.pid)
                anonymous += own
                files = {path: max(mapped.get(path, 0), files.get(path, 0)) for path in mapped.keys() | files.keys()}
        self._fullest = max(self._fullest, (anonymous, sum(files.values())), key=sum)

    def _found(self) -> Peak:
        return Peak(sum(self._fullest), *self._fullest)


def _mappings(pid: int) -> tuple[int, dict[str, int]]:
    """Bytes that are the process' own, what it shares with a parent by its part; and of each mapped file."""
    own, files, path, shared_bytes = 0, dict[str, int](), "", 0
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):  # the head of a mapping: addresses, rights, offset, device, inode, path
            path = words[5] if len(words) > 5 and words[4] != "0" else ""
        elif words[0] == "Rss:":
            shared_bytes = int(words[1]) * 1024
        elif words[0] == "Pss:" and not path:
            own += int(words[1]) * 1024
        elif words[0] == "Anonymous:" and path:  # pages of a file that were written to
            own += int(words[1]) * 1024
            files[path] = files.get(path, 0) + shared_bytes - int(words[1]) * 1024
    return own, files
