"""The shape of the command line: common options everywhere, `serve` has every setting, nothing heavy loads."""

import inspect
import subprocess
import sys

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from dockyard.cli.failures import ApiRefused, Problem
from dockyard.cli.main import app
from dockyard.cli.serve import serve
from dockyard.settings import Settings

SECRET_SETTINGS = {"admin_key", "database_url"}  # a flag would show them in the list of processes


def commands() -> dict[str, list[str]]:
    """Every command with its options."""
    found: dict[str, list[str]] = {}

    def walk(command: object, path: tuple[str, ...]) -> None:
        nested = getattr(command, "commands", None)
        if nested is None:
            found[" ".join(path)] = [flag for param in getattr(command, "params", []) for flag in param.opts]
            return
        for name, child in nested.items():
            walk(child, (*path, name))

    walk(get_command(app), ())
    return found


def test_every_command_of_the_api_has_the_common_options() -> None:
    for name, options in commands().items():
        if name not in ("serve", "version", "engines install", "engines remove"):  # of this machine, not of the API
            assert {"--url", "--api-key", "--json"} <= set(options), name


def test_the_published_commands_are_there() -> None:
    expected = {
        *("serve", "deploy", "undeploy", "status", "chat", "devices", "version"),
        *(f"models {name}" for name in ("import", "list", "show", "export", "delete", "prune")),
        *(
            f"deployments {name}"
            for name in ("list", "show", "versions", "events", "replicas", "logs", "rollback", "set-timeout")
        ),
        *(f"engines {name}" for name in ("list", "install", "remove")),
        *(f"keys {name}" for name in ("create", "list", "revoke")),
        *(f"keys apps {name}" for name in ("create", "list", "change", "delete")),
    }

    assert set(commands()) == expected


def test_serve_has_a_flag_for_every_setting_that_is_no_secret() -> None:
    assert set(inspect.signature(serve).parameters) == set(Settings.model_fields) - SECRET_SETTINGS


def test_a_setting_that_is_wrong_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKYARD_PORT", raising=False)

    result = CliRunner().invoke(app, ["serve", "--port", "99999"])

    assert result.exit_code == 2
    assert "--port (DOCKYARD_PORT)" in result.stderr


def test_help_loads_nothing_heavy() -> None:
    heavy = ("httpx", "pydantic_settings", "sqlalchemy", "fastapi", "uvicorn", "torch")
    program = f"import sys; import dockyard.cli.main; print([name for name in {heavy!r} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_the_field_is_told_once() -> None:
    problems = (
        Problem("topK must be between 1 and 100", "OUT_OF_RANGE", "topK"),
        Problem("must be text", "WRONG_TYPE", "name"),
    )

    assert ApiRefused(400, problems).lines == (
        "error: topK must be between 1 and 100 (OUT_OF_RANGE)",
        "error: name: must be text (WRONG_TYPE)",
    )


def test_the_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout.startswith("dockyard ")
    assert CliRunner().invoke(app, ["version"]).stdout == CliRunner().invoke(app, ["--version"]).stdout
