"""The most memory that a process had.

The kernel keeps the largest resident size of a process (VmHWM), so no moment is missed. Pages of libraries count in
full, as for the first replica of a host; whoever maps the same files later, or is forked from a warm spare, shares them
and takes less. Weights that are mapped from their file count: the engine reads all of them at every step.
"""

import contextlib
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_EVERY_S = 0.02


@dataclass(frozen=True, slots=True)
class Peak:
    """Bytes. `anonymous` and `files` are the parts of the fullest sample: what was allocated, what was mapped."""

    total: int
    anonymous: int
    files: int


class PeakWatch:
    """`with PeakWatch(pid) as watch: …`; then `watch.peak`, since the process began."""

    peak: Peak

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak", daemon=True)
        self._fullest: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        self._look()
        self.peak = Peak(self._fields()["VmHWM"], self._fullest["RssAnon"], self._fullest["RssFile"])

    def _watch(self) -> None:
        while not self._over.wait(_EVERY_S):
            self._look()

    def _look(self) -> None:
        with contextlib.suppress(OSError):  # it has ended
            seen = self._fields()
            if seen["VmRSS"] > self._fullest.get("VmRSS", 0):
                self._fullest = seen

    def _fields(self) -> dict[str, int]:
        """The lines `Name: 12 kB` of the kernel's account, in bytes."""
        lines = (line.split() for line in self._status.read_text().splitlines())
        return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[2:] == ["kB"]}
