import pytest

from dockyard.engines.failures import reason_of, translated
from dockyard.errors import Failed, Invalid, Reason


class SafetensorError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), Reason.OUT_OF_MEMORY),
        (RuntimeError("std::bad_alloc"), Reason.OUT_OF_MEMORY),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), Reason.OUT_OF_MEMORY),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), Reason.OUT_OF_MEMORY),
        (RuntimeError("File model.bin is incomplete: failed to read a buffer"), Reason.ARTIFACT_CORRUPT),
        (RuntimeError("Variable 'x' has an invalid payload size"), Reason.ARTIFACT_CORRUPT),
        (RuntimeError("Unable to open file 'model.bin' in model 'x'"), Reason.ARTIFACT_CORRUPT),
        (SafetensorError("Error while deserializing header: header too small"), Reason.ARTIFACT_CORRUPT),
        (FileNotFoundError(2, "No such file or directory"), Reason.ARTIFACT_CORRUPT),
        (ModuleNotFoundError("No module named 'torch'"), Reason.ENGINE_NOT_INSTALLED),
        (RuntimeError("This model cannot be used as a sequence generator"), Reason.ENGINE_FAILED),
    ],
)
def test_reasons(error: Exception, reason: Reason) -> None:
    assert reason_of(error) is reason


def test_a_translated_error_says_what_was_done_and_the_first_line() -> None:
    error = translated(RuntimeError("bad thing\n  at frame 1\n  at frame 2"), "loading the model")
    assert isinstance(error, Failed)
    assert error.message == "loading the model failed: bad thing"


def test_an_error_without_words_is_named() -> None:
    assert translated(MemoryError(), "loading").message == "loading failed: MemoryError"


def test_our_own_errors_stay_as_they_are() -> None:
    own = Invalid("no")
    assert translated(own, "loading") is own
