"""SIGTERM: what runs and waits is finished, what is new is refused, nothing is left. Twice means now."""

import signal
from pathlib import Path

import httpx
import pytest
from tests.acceptance.clients import Askers, Stream
from tests.acceptance.server import Server, body

STEP_MS = 20
LONG = "The quick brown fox jumps over the lazy dog. " * 3  # 2.7 s
SHORT = "A short one."
ENDLESS = "x" * 500  # 10 s


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a server on which an echo model is deployed that serves four at once."""
    folder = tmp_path_factory.mktemp("sigterm")
    with Server(folder / "data") as server:
        server.deploy(server.import_echo(folder, step_ms=STEP_MS), body("echo", maxBatchSize=4, maxReplicas=1))
    return folder / "data"


def assert_nothing_left(server: Server) -> None:
    assert server.workers() == []
    assert not list((server.data_dir / "run").glob("*.sock"))


def test_what_runs_and_what_waits_is_finished_and_what_is_new_is_refused(data_dir: Path) -> None:
    with Server(data_dir) as server:
        running = [Stream(server, "echo", LONG) for _ in range(4)]
        server.until(lambda: server.load("echo")[1] == 4)
        waiting = [Stream(server, "echo", SHORT) for _ in range(2)]
        server.until(lambda: server.load("echo")[0] == 2)
        with Askers(server, "echo", SHORT, 2) as askers:
            server.send(signal.SIGTERM)
            askers.until(lambda: len(askers.errors) >= 4)
            assert [stream.whole() for stream in running] == [LONG] * 4
            assert [stream.whole() for stream in waiting] == [SHORT] * 2
        assert {answer.text for answer in askers.answers} <= {SHORT, None}
        assert all(answer.refused_cleanly for answer in askers.answers if answer.error), askers.errors
        assert server.ended() == 0
        assert_nothing_left(server)


def test_a_second_sigterm_means_now(data_dir: Path) -> None:
    with Server(data_dir) as server:
        stream = Stream(server, "echo", ENDLESS).after(1)
        server.send(signal.SIGTERM)
        server.until(lambda: not accepts(server))
        server.send(signal.SIGTERM)
        assert server.ended() == 0
        assert "DRAINING" in (stream.end() or "")
        assert_nothing_left(server)


def test_who_takes_longer_than_the_drain_is_told(data_dir: Path) -> None:
    """A stream ends with an error, a whole reply is a 503 with `Retry-After`; no half-truth, no 500."""
    with Server(data_dir, DOCKYARD_DRAIN_TIMEOUT_S="0.5") as server:
        stream = Stream(server, "echo", ENDLESS).after(1)
        with Askers(server, "echo", ENDLESS, 1) as askers:
            server.until(lambda: server.load("echo") == (0, 2))
            server.send(signal.SIGTERM)
            assert "DRAINING" in (stream.end() or "")
            assert server.ended() == 0
        assert "503" in (askers.answers[0].error or "")
        assert askers.answers[0].refused_cleanly
        assert "Traceback" not in server.log
        assert_nothing_left(server)


def accepts(server: Server) -> bool:
    try:
        server.call("GET", "/healthz")
    except httpx.HTTPError:
        return False
    return True
