"""The bars on a terminal of 80 columns: the phase is whole, and what is cut of a message is told below."""

import io
import re
from typing import Any, cast

import pytest

from dockyard.cli.client import Client
from dockyard.cli.command import Session
from dockyard.cli.download import bytes_bar
from dockyard.cli.failures import CommandFailed
from dockyard.cli.output import Output
from dockyard.cli.watch import follow_job


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue()))


class Scripted:
    def __init__(self, *jobs: dict[str, Any]) -> None:
        self._jobs = list(jobs)

    def get(self, *_: str) -> dict[str, Any]:
        return self._jobs.pop(0)


class OnATerminal:
    def __init__(self, out: Terminal, *jobs: dict[str, Any]) -> None:
        self.out = Output(False, out, io.StringIO())
        self.client = cast(Client, Scripted(*jobs))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def test_a_phase_is_never_cut_and_a_line_is_one_line(terminal: Terminal) -> None:
    message = "it waits for " + "memory of the host " * 9
    going = {"status": "IN_PROGRESS", "phase": "PROVISIONING", "percentageComplete": 40, "message": message}
    ended = {**going, "status": "FAILED", "percentageComplete": 45, "reason": "NO_CAPACITY", "action": "DEPLOY"}
    with pytest.raises(CommandFailed, match=re.escape(message)):
        follow_job(cast(Session, OnATerminal(terminal, going, ended)), "ds-1", lambda _: None)
    [*_, last] = [line for line in terminal.lines if line.strip()]
    assert last.startswith("PROVISIONING ")
    assert " 45% " in last
    assert "it waits for" in last
    assert last.rstrip().endswith("…")
    assert len(last.rstrip()) <= 80


def test_an_upload_has_a_bar_of_its_bytes(terminal: Terminal) -> None:
    session = cast(Session, OnATerminal(terminal))
    with bytes_bar(session, "UPLOADING", 4_000_000) as show:
        show(1_000_000)
        show(3_000_000)
    [*_, last] = [line for line in terminal.lines if line.strip()]
    assert last.startswith("UPLOADING")
    assert "3.0/4.0 MB" in last
    assert "━" in last


def test_a_pipe_gets_no_bar() -> None:
    out = io.StringIO()
    session = OnATerminal(Terminal())
    session.out = Output(False, out, io.StringIO())
    with bytes_bar(cast(Session, session), "UPLOADING", 4) as show:
        show(4)
    assert out.getvalue() == ""
