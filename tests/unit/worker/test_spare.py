"""Whether a process may be forked: not with threads, and not with a GPU."""

import threading
from collections.abc import Iterator

import pytest

from dockyard.protocols.spares import Reaped
from dockyard.worker import spare


@pytest.fixture
def thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One more than pytest's own, for as long as the test."""
    monkeypatch.setattr(spare, "_THREAD_ENDS_WITHIN_S", 0)
    enough = threading.Event()
    running = threading.Thread(target=enough.wait)
    running.start()
    yield
    enough.set()
    running.join()


@pytest.mark.usefixtures("thread")
def test_not_with_a_thread_that_runs() -> None:
    why = spare._unfit()

    assert why is not None
    assert "threads running" in why


def test_not_with_a_gpu_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spare, "_thread_names", lambda: ["python"])
    monkeypatch.setattr(spare, "_open_files", lambda: ["/dev/null", "/dev/nvidia0"])

    assert "GPU" in (spare._unfit() or "")


def test_else_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spare, "_thread_names", lambda: ["python"])

    assert spare._unfit() is None


def test_what_is_no_child_was_not_reaped() -> None:
    assert spare._reap(1) == Reaped()
