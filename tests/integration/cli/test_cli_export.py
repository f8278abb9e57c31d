"""Export by the command line: watched, fetched, gone on with where it broke off, checked, and only then named."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from starlette.responses import Response

from dockyard.cli.command import Session
from dockyard.cli.download import fetch
from dockyard.cli.failures import ApiRefused, Unreachable

if TYPE_CHECKING:
    from conftest import ApiDouble, Cli

MODEL, EXPORT = "/api/public/models/cm-1", "/api/public/models/cm-1/export"
JOB, LINK = "/api/public/dock-status/ds-1", "/api/public/downloads/ds-1"
CONTENT = bytes(range(256)) * 100
ARCHIVE: dict[str, Any] = {
    # Another host than the client's: only the client knows how to get to the server.
    "downloadUrl": f"https://elsewhere.example/dockyard{LINK}?expires=1&signature=ab",
    "expiresOn": "2026-02-05T11:58:03.000Z",
    "sizeBytes": len(CONTENT),
    "sha256": hashlib.sha256(CONTENT).hexdigest(),
}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out" / "smol.tar"


@pytest.fixture(autouse=True)
def scripted(double: "ApiDouble", target: Path) -> None:
    target.parent.mkdir()
    double.on("GET", MODEL, double.model(name="Flan T5 (date)"))
    double.on("POST", EXPORT, {"dockStatusId": "ds-1"})
    double.on("GET", JOB, double.job("IN_PROGRESS", action="EXPORT"), double.job(action="EXPORT", response=ARCHIVE))
    double.on("GET", LINK, Response(CONTENT))


def cut(content: bytes, status: int = 200) -> Response:
    """An answer that breaks off: more is promised than comes."""
    return Response(content, status, headers={"content-length": str(len(CONTENT))})


def ranges(double: "ApiDouble") -> list[str | None]:
    return [seen.headers.get("range") for seen in double.seen if seen.path == LINK]


def download(double: "ApiDouble", target: Path) -> list[float]:
    """Fetch to `target`; returns the waits."""
    waits: list[float] = []
    session = Session(double.url, "kg", as_json=False)
    try:
        fetch(session, ARCHIVE, target, waits.append)
    finally:
        session.close()
    return waits


def test_the_archive_is_saved_under_its_name(cli: "Cli", double: "ApiDouble", target: Path) -> None:
    result = cli("models", "export", "cm-1", "--output", str(target), "--name", "chat")

    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == str(target)
    assert ARCHIVE["sha256"] in result.stderr
    assert f"dockyard models import {target}\n" in result.stderr
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]
    assert [seen.query for seen in double.seen if seen.path == EXPORT] == [{"name": "chat"}]
    assert [seen.query for seen in double.seen if seen.path == LINK] == [{"expires": "1", "signature": "ab"}]


def test_a_fine_tune_is_brought_in_as_one(cli: "Cli", double: "ApiDouble", target: Path) -> None:
    double.on("GET", MODEL, double.model(modelType="fineTune"))

    result = cli("models", "export", "cm-1", "--output", str(target))

    assert f"dockyard models import {target} --type fineTune\n" in result.stderr


def test_the_name_by_default_is_the_models(cli: "Cli", target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(target.parent)
    assert cli("models", "export", "cm-1").stdout.splitlines()[-1] == "Flan-T5-date.tar"
    (target.parent / "folder").mkdir()
    result = cli("models", "export", "cm-1", "--output", "folder")
    assert result.stdout.splitlines()[-1] == "folder/Flan-T5-date.tar"


def test_json_is_the_ended_job_alone(cli: "Cli", double: "ApiDouble", target: Path) -> None:
    result = cli("models", "export", "cm-1", "--output", str(target), "--json")

    assert json.loads(result.stdout) == double.job(action="EXPORT", response=ARCHIVE)
    assert target.read_bytes() == CONTENT


def test_a_file_that_is_there_stays_and_nothing_is_started(cli: "Cli", double: "ApiDouble", target: Path) -> None:
    target.write_text("mine")

    result = cli("models", "export", "cm-1", "--output", str(target))

    assert result.exit_code == 2
    assert "--output" in result.stderr
    assert target.read_text() == "mine"
    assert cli("models", "export", "cm-1", "--output", str(target / "no" / "x.tar")).exit_code == 2
    assert all(seen.method == "GET" for seen in double.seen)


def test_a_failed_export_is_exit_code_1(cli: "Cli", double: "ApiDouble", target: Path) -> None:
    double.on("GET", JOB, double.job("FAILED", action="EXPORT", reason="DISK_FULL", message="the disk is full"))

    result = cli("models", "export", "cm-1", "--output", str(target))

    assert result.exit_code == 1
    assert "the export failed in phase OPTIMIZING: the disk is full (DISK_FULL)" in result.stderr
    assert not target.exists()


def test_a_part_is_gone_on_with(double: "ApiDouble", target: Path) -> None:
    (target.parent / "smol.tar.part").write_bytes(CONTENT[:1000])
    double.on("GET", LINK, Response(CONTENT[1000:], 206))

    assert download(double, target) == []

    assert target.read_bytes() == CONTENT
    assert ranges(double) == ["bytes=1000-"]


def test_a_download_that_breaks_off_goes_on(double: "ApiDouble", target: Path) -> None:
    double.on("GET", LINK, cut(CONTENT[:500]), cut(CONTENT[500:700], 206), Response(CONTENT[700:], 206))

    assert len(download(double, target)) == 2

    assert target.read_bytes() == CONTENT
    assert ranges(double) == [None, "bytes=500-", "bytes=700-"]


@pytest.mark.parametrize("part", [b"x" * 1000, b"x" * 1_000_000, b"x" * len(CONTENT)])
def test_a_part_of_another_archive_is_thrown_away(double: "ApiDouble", target: Path, part: bytes) -> None:
    (target.parent / "smol.tar.part").write_bytes(part)
    resumed = [Response(CONTENT[1000:], 206)] if len(part) == 1000 else []
    double.on("GET", LINK, *resumed, Response(CONTENT))

    download(double, target)

    assert target.read_bytes() == CONTENT
    assert ranges(double)[-1] is None


def test_what_differs_from_its_digest_is_not_kept(cli: "Cli", double: "ApiDouble", target: Path) -> None:
    double.on("GET", LINK, Response(b"x" * len(CONTENT)))

    result = cli("models", "export", "cm-1", "--output", str(target))

    assert result.exit_code == 1
    assert "digest" in result.stderr
    assert list(target.parent.iterdir()) == []


def test_a_link_that_is_refused(double: "ApiDouble", target: Path) -> None:
    double.on("GET", LINK, double.refusal(403, "the link has expired; export the model again", "LINK_EXPIRED"))

    with pytest.raises(ApiRefused, match="expired"):
        download(double, target)

    assert not target.exists()


def test_a_server_that_stays_away_is_given_up_and_the_part_is_kept(double: "ApiDouble", target: Path) -> None:
    double.on("GET", LINK, cut(CONTENT[:500]), cut(b"", 206))

    with pytest.raises(Unreachable):
        download(double, target)

    assert (target.parent / "smol.tar.part").read_bytes() == CONTENT[:500]
