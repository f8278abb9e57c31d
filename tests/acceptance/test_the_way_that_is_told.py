"""A new user without the docs: each command says what comes next, and what it says is what is typed next."""

import os
import re
import shlex
from pathlib import Path

import pytest
from tests.acceptance.server import MODELS, Server
from typer.testing import CliRunner

from dockyard.cli.main import app

ECHO = MODELS / "echo"


class Newcomer:
    """Types commands; `read` is all that the last one printed."""

    def __init__(self, server: Server) -> None:
        self._own = {"DOCKYARD_URL": server.url, "DOCKYARD_API_KEY": server.key}
        self.read = ""

    def type(self, line: str, expect: int = 0) -> str:
        program, *arguments = shlex.split(line)
        assert program == "dockyard"
        done = CliRunner().invoke(app, arguments, env=self._own)
        self.read = done.output
        assert done.exit_code == expect, self.read
        return self.read

    def told(self, begins: str, **words: str) -> str:
        """The command that was told last and begins so; `words` are what stands for the capitals in it."""
        found = re.findall(rf"dockyard {re.escape(begins)}[^`\n;]*", self.read)
        assert found, f"no `dockyard {begins}` in: {self.read}"
        line = found[-1]
        for name, word in words.items():
            line = line.replace(name, word)
        return line


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands are typed; nothing of this machine's user is found there."""
    own = tmp_path / "home"
    own.mkdir()
    for name in [name for name in os.environ if name.startswith("DOCKYARD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(own))
    monkeypatch.chdir(own)
    return own


def bytes_of(folder: Path) -> str:
    return f"{sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()) / 1024:.1f} KiB freed"


def test_from_nothing_to_an_answer_and_out_and_in_elsewhere(bare_data_dir: Path, tmp_path: Path, folder: Path) -> None:
    with Server(bare_data_dir) as server:
        user = Newcomer(server)
        user.type("dockyard models list")
        user.type(user.told("models import", SOURCE=str(ECHO)))
        deploy = user.told("deploy")
        assert "--dry-run" in user.read
        user.type(f"{deploy} --dry-run")
        assert "the same without --dry-run deploys it" in user.read

        user.type(deploy)
        ask = user.told("chat", TEXT="and back")
        assert "and back" in user.type(ask)

        user.type("dockyard models export echo")
        bring_in = user.told("models import")
        archive = (folder / "echo.tar").read_bytes()

        user.type("dockyard models delete echo", expect=1)
        user.type(user.told("undeploy", MODEL="echo"))
        stored = bytes_of(bare_data_dir / "artifacts")
        assert stored in user.type(user.told("models delete"))
        assert list((bare_data_dir / "artifacts").rglob("config.json")) == []

    with Server(tmp_path / "elsewhere") as other:
        user = Newcomer(other)
        user.type(bring_in)
        user.type(user.told("deploy echo --from-export"))
        assert "and back" in user.type(ask)
        user.type("dockyard models export echo --output again.tar")
        assert (folder / "again.tar").read_bytes() == archive


def test_what_two_models_share_is_freed_with_the_last_of_them(bare_data_dir: Path, folder: Path) -> None:
    with Server(bare_data_dir) as server:
        user = Newcomer(server)
        for name in ("one", "other"):
            user.type(f"dockyard models import {ECHO} --name {name}")
        stored = bytes_of(bare_data_dir / "artifacts")
        assert "0 bytes freed" in user.type("dockyard models delete one")
        assert "its files stay: another model shares them" in user.read
        assert stored in user.type("dockyard models delete other")


def test_a_wrong_turn_names_the_way_back(bare_data_dir: Path, folder: Path) -> None:
    with Server(bare_data_dir) as server:
        user = Newcomer(server)
        (folder / "empty").mkdir()
        assert "config.json" in user.type("dockyard models import empty", expect=1)
        assert "./org/none is a path for sure" in user.type("dockyard models import org/none --no-wait")
        user.type("dockyard deploy ehco --name e --device g5.xlarge", expect=1)
        user.type(user.told("models list"))
        user.type(f"dockyard models import {ECHO} --type tune", expect=1)
        assert "modelType is --type" in user.read
        user.type(f"dockyard models import {ECHO}")
        user.type("dockyard deploy echo", expect=2)
        assert len(user.type(user.told("devices")).splitlines()) == 8
        user.type("dockyard deploy echo --name e --device g5.xlarge --wait")
        user.type("dockyard chat e hello", expect=1)
        assert "hello" in user.type(user.told("chat --completion", DEPLOYMENT="e", TEXT="hello"))
        user.type("dockyard chat f hello", expect=1)
        assert "\te\t" in user.type(user.told("deployments list"))
