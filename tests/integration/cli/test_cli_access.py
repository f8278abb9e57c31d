"""Which key is sent where: flags, then variables, then this machine's key file, which never leaves this machine."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dockyard.cli.access import find_key

if TYPE_CHECKING:
    from conftest import ApiDouble, Cli

DEVICES = "/api/public/devices"


@pytest.fixture(autouse=True)
def _some_devices(double: "ApiDouble") -> None:
    double.on("GET", DEVICES, double.page("devices"))


def test_the_flag_comes_first(cli: "Cli", double: "ApiDouble") -> None:
    cli("devices", "--api-key", "kg-flag")

    assert double.seen[0].headers["x-api-key"] == "kg-flag"


def test_then_the_variables(cli: "Cli", double: "ApiDouble", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKYARD_ADMIN_KEY", "kg-admin")
    cli("devices")
    monkeypatch.delenv("DOCKYARD_API_KEY")
    cli("devices")

    assert double.seen[0].headers["x-api-key"] == cli.env["DOCKYARD_API_KEY"]
    assert double.seen[1].headers["x-api-key"] == "kg-admin"


def test_then_the_key_file_of_this_machine(
    cli: "Cli", double: "ApiDouble", monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DOCKYARD_API_KEY")
    (tmp_path / "admin-key").write_text("kg-file\n")

    cli("devices")

    assert double.seen[0].headers["x-api-key"] == "kg-file"


def test_the_key_file_is_not_sent_to_another_machine(
    cli: "Cli", monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DOCKYARD_API_KEY")
    (tmp_path / "admin-key").write_text("kg-file\n")

    assert find_key(None, "http://localhost:8000") == "kg-file"
    assert find_key(None, "https://dockyard.example") is None


def test_blanks_around_a_key_are_not_its_own(cli: "Cli", double: "ApiDouble") -> None:
    cli("devices", "--api-key", "\tkg-flag\n")

    assert double.seen[0].headers["x-api-key"] == "kg-flag"


def test_what_can_be_no_key_is_told_before_it_is_sent(
    cli: "Cli", double: "ApiDouble", monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "--api-key holds no key" in cli("devices", "--api-key", "kg-é").stderr
    monkeypatch.setenv("DOCKYARD_API_KEY", "kg-a\x7fb")
    assert "DOCKYARD_API_KEY holds no key" in cli("devices").stderr
    monkeypatch.delenv("DOCKYARD_API_KEY")
    (tmp_path / "admin-key").write_bytes(b"\xff\x00")
    result = cli("devices")
    assert (result.exit_code, "admin-key holds no key" in result.stderr) == (2, True)
    assert double.seen == []


def test_without_any_key_the_server_is_asked_all_the_same(
    cli: "Cli", double: "ApiDouble", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKYARD_API_KEY")

    cli("devices")

    assert "x-api-key" not in double.seen[0].headers
