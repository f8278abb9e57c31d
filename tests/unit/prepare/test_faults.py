"""Foreign exceptions become a reason and a sentence without the server's paths."""

import errno

import pytest

from dockyard.errors import Failed, Reason
from dockyard.prepare.faults import explain, without_paths
from dockyard.protocols.preparation import ConvertTask, ExportTask, ImportTask, PathSource, Task

IMPORT = ImportTask(source=PathSource(path="/m"), artifacts_dir="/a", scratch_dir="/s")
CONVERT = ConvertTask(source_key="k", engine="ctranslate2", quantization="q", artifacts_dir="/a", scratch_dir="/s")
EXPORT = ExportTask(
    source_key="k", folder="f", deploy_config={}, archive="/e/j.tar", artifacts_dir="/a", scratch_dir="/s"
)


def _caused(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "task", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), IMPORT, Reason.DISK_FULL),
        (OSError(errno.EDQUOT, "Quota"), CONVERT, Reason.DISK_FULL),
        (_caused(RuntimeError("x"), OSError(errno.ENOSPC, "full")), CONVERT, Reason.DISK_FULL),
        (RuntimeError("I/O error: No space left on device (os error 28)"), CONVERT, Reason.DISK_FULL),
        (MemoryError(), IMPORT, Reason.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), CONVERT, Reason.OUT_OF_MEMORY),
        (ValueError("odd"), CONVERT, Reason.CONVERSION_FAILED),
        (OSError(errno.ENOSPC, "No space left on device"), EXPORT, Reason.DISK_FULL),
        (OSError(errno.EIO, "Input/output error"), EXPORT, Reason.INTERNAL),
        (PermissionError(errno.EACCES, "Permission denied", "/srv/x"), IMPORT, Reason.PATH_NOT_ALLOWED),
        (OSError(errno.EIO, "Input/output error"), IMPORT, Reason.INTERNAL),
        (Failed("told", reason=Reason.PICKLE_REFUSED), IMPORT, Reason.PICKLE_REFUSED),
    ],
)
def test_reason(error: Exception, task: Task, reason: Reason) -> None:
    assert explain(error, task)[0] is reason


def test_the_converter_is_quoted_without_paths() -> None:
    reason, message = explain(ValueError("cannot read /srv/data/artifacts/ab/model.bin"), CONVERT)
    assert reason is Reason.CONVERSION_FAILED
    assert message == "the converter stopped with ValueError: cannot read …/model.bin"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('File "/usr/lib/python3/x.py", line 3', 'File "…/x.py", line 3'),
        ("a/b and 1/2", "a/b and 1/2"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
        ("/one", "/one"),
    ],
)
def test_paths_are_cut(text: str, told: str) -> None:
    assert without_paths(text) == told


def test_a_circle_of_causes_ends() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert explain(first, CONVERT)[0] is Reason.CONVERSION_FAILED
