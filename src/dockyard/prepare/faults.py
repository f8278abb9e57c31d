"""Foreign exceptions, told as a reason and one sentence that shows nothing of the server's file system."""

import errno
import re
from collections.abc import Iterator

from dockyard.errors import DockyardError, Reason
from dockyard.protocols.preparation import ExportTask, ImportTask, Task

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_TEXT = "no space left on device"
_MEMORY_TEXT = ("can't allocate memory", "cannot allocate memory", "out of memory", "bad_alloc")
_FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^\s/'\":,;()]+/)+")
_LONGEST = 500


def explain(error: BaseException, task: Task) -> tuple[Reason, str]:
    """Why `task` failed. What Dockyard raised itself is told as it stands."""
    if isinstance(error, DockyardError):
        return error.reason, error.message
    chain = list(_causes(error))
    texts = [str(cause).lower() for cause in chain]
    if any(isinstance(cause, OSError) and cause.errno in _FULL for cause in chain) or _said(texts, (_FULL_TEXT,)):
        return Reason.DISK_FULL, "the data directory's disk is full; free some space, then try again"
    if any(isinstance(cause, MemoryError) for cause in chain) or _said(texts, _MEMORY_TEXT):
        return Reason.OUT_OF_MEMORY, "the process ran out of memory; free some on the server, then try again"
    told = f"{type(error).__name__}: {without_paths(str(error))}"[:_LONGEST]
    if isinstance(task, ExportTask):
        return Reason.INTERNAL, f"the export stopped with {told}"
    if not isinstance(task, ImportTask):
        return Reason.CONVERSION_FAILED, f"the converter stopped with {told}"
    if isinstance(error, PermissionError):
        return Reason.PATH_NOT_ALLOWED, "the server may not read the files; give its user the right to, then try again"
    if isinstance(error, OSError):
        return Reason.INTERNAL, f"reading or writing stopped with {told}"
    return Reason.INTERNAL, f"the import stopped with {told}"


def without_paths(text: str) -> str:
    """`text` with absolute paths cut down to their last part: `/srv/data/x/model.bin` becomes `…/model.bin`."""
    return _FOLDERS.sub("…/", text)


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    for _ in range(20):  # a chain can be a circle
        if cause is None:
            return
        yield cause
        cause = cause.__cause__ or cause.__context__


def _said(texts: list[str], words: tuple[str, ...]) -> bool:
    return any(word in text for text in texts for word in words)
