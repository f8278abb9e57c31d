"""What a command prints: lines in a pipe, a table on a terminal, the API's JSON with --json, problems on stderr."""

import json
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from starlette.responses import JSONResponse, PlainTextResponse

if TYPE_CHECKING:
    from conftest import ApiDouble, Cli

MODELS = "/api/public/models"
COMMAND = (sys.executable, "-c", "from dockyard.cli.main import main; main()")


def test_a_pipe_gets_a_line_per_row_with_tabs_and_no_head(cli: "Cli", double: "ApiDouble") -> None:
    double.on("GET", MODELS, double.page("models", double.model(), double.model("cm-2", "gpt2")))

    result = cli("models", "list")

    assert result.exit_code == 0
    first, second = result.stdout.splitlines()
    assert first.split("\t")[:4] == ["cm-1", "Flan T5", "openSource", "Ready to Deploy"]
    assert second.startswith("cm-2\tgpt2\t")


def test_json_is_the_api_s_reply_and_nothing_else(cli: "Cli", double: "ApiDouble") -> None:
    page = double.page("models", double.model())
    double.on("GET", MODELS, page)

    assert json.loads(cli("models", "list", "--json").stdout) == page


def test_every_page_of_a_list_is_read(cli: "Cli", double: "ApiDouble") -> None:
    first = double.page("models", double.model("cm-1"), cursor="next")
    second = double.page("models", double.model("cm-2"))
    double.on("GET", MODELS, {**first, "total": 2}, {**second, "total": 2})

    document = json.loads(cli("models", "list", "--json").stdout)

    assert [model["modelId"] for model in document["models"]] == ["cm-1", "cm-2"]
    assert document["nextCursor"] is None
    assert double.seen[1].query["cursor"] == "next"


def test_an_empty_list_leaves_the_pipe_empty_and_tells_a_person_what_to_do(cli: "Cli", double: "ApiDouble") -> None:
    double.on("GET", MODELS, double.page("models"))

    result = cli("models", "list")

    assert (result.exit_code, result.stdout) == (0, "")
    assert "dockyard models import" in result.stderr


def test_a_terminal_gets_a_table_with_a_head(double: "ApiDouble", environment: dict[str, str]) -> None:
    double.on("GET", MODELS, double.page("models", double.model(name="[bold]not markup[/]")))

    text = _on_a_terminal(["models", "list"], {**environment, "COLUMNS": "160", "TERM": "xterm"})

    assert "NAME" in text
    assert "[bold]not markup[/]" in text


@pytest.mark.parametrize("width", [40, 80, 160])
def test_an_id_is_never_cut(double: "ApiDouble", environment: dict[str, str], width: int) -> None:
    ids = [f"cm-0000000{n}-0000-4000-8000-000000000001" for n in range(3)]
    double.on("GET", MODELS, double.page("models", *(double.model(one, f"a name {n}") for n, one in enumerate(ids))))

    text = _on_a_terminal(["models", "list"], {**environment, "COLUMNS": str(width), "TERM": "xterm"})

    assert [one for one in ids if one in text] == ids
    assert "Ready to Deploy" in " ".join(text.split())
    assert "…" not in text


def test_every_problem_is_a_sentence_on_stderr_with_its_field(cli: "Cli", double: "ApiDouble") -> None:
    errors = [
        {"msg": "hyperParameters.topK must be between 1 and 100, got 0", "code": 400, "reason": "OUT_OF_RANGE",
         "field": "hyperParameters.topK"},
        {"msg": "must be one of the device types", "code": 400, "reason": "NOT_IN_ENUM", "field": "deviceType"},
    ]  # fmt: skip
    double.on("GET", "/api/public/models/cm-1", double.model())
    double.on("POST", "/api/public/models/cm-1/deploy", JSONResponse({"errors": errors}, 400))

    result = cli("deploy", "cm-1", "--name", "a", "--device", "abacus", "--top-k", "0")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        "error: hyperParameters.topK must be between 1 and 100, got 0 (OUT_OF_RANGE)",
        "error: deviceType: must be one of the device types (NOT_IN_ENUM)",
        "  deviceType is --device",
    ]


@pytest.mark.parametrize(
    ("status", "reason", "hint"),
    [
        (401, "NO_KEY", "--api-key"),
        (401, "UNKNOWN_KEY", "DOCKYARD_API_KEY"),
        (403, "MISSING_SCOPE", "dockyard keys apps change"),
        (404, "NOT_FOUND", "dockyard models list"),
        (409, "BASE_MODEL_IN_USE", "dockyard models delete"),
        (503, "DISK_FULL", "dockyard models prune"),
        (400, "DOES_NOT_FIT_DEVICE", "--max-batch-size"),
        (400, "PATH_NOT_FOUND", "dockyard models import FOLDER.tar"),
        (400, "PATH_NOT_ALLOWED", "DOCKYARD_IMPORT_ROOTS"),
        (500, "INTERNAL", "request id rq-7"),
    ],
)
def test_what_to_do_follows_the_problem(cli: "Cli", double: "ApiDouble", status: int, reason: str, hint: str) -> None:
    double.on("GET", MODELS, double.refusal(status, "no", reason))

    result = cli("models", "list")

    assert result.exit_code == 1
    assert hint in result.stderr


def test_retry_after_is_told(cli: "Cli", double: "ApiDouble") -> None:
    double.on("GET", MODELS, double.refusal(503, "not now", "DRAINING", headers={"retry-after": "7"}))

    assert cli("models", "list").stderr.splitlines()[:2] == ["error: not now (DRAINING)", "  try again in 7 s"]


def test_a_server_that_is_not_there_is_one_line_that_says_how_to_start_it(cli: "Cli") -> None:
    result = cli("models", "list", "--url", "http://127.0.0.1:9")

    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "`dockyard serve`" in result.stderr


def test_something_else_than_dockyard_at_the_url(cli: "Cli", double: "ApiDouble") -> None:
    double.on("GET", MODELS, PlainTextResponse("hello"))

    result = cli("models", "list")

    assert result.exit_code == 1
    assert "is that a Dockyard server?" in result.stderr


@pytest.mark.parametrize("url", ["localhost", "ftp://a", "http://", "http://a:x", "http://a:99999", "http://[::1"])
def test_a_url_that_is_none_is_wrong_usage(cli: "Cli", url: str) -> None:
    result = cli("models", "list", "--url", url)

    assert result.exit_code == 2
    assert "--url must look like http://127.0.0.1:8000" in result.stderr


@pytest.mark.parametrize("path", ["/", "/api/public", "/api/public/", "/v1"])
def test_a_url_with_the_path_of_an_api_is_that_of_its_server(cli: "Cli", double: "ApiDouble", path: str) -> None:
    double.on("GET", MODELS, double.page("models"))

    assert cli("models", "list", "--url", double.url + path).exit_code == 0


def test_a_server_without_https_is_told_by_its_own_url(cli: "Cli", double: "ApiDouble") -> None:
    url = double.url.removeprefix("http:")

    assert f"speaks HTTP: http:{url}" in cli("models", "list", "--url", f"https:{url}").stderr


def test_a_reader_that_goes_away_ends_the_command_quietly(double: "ApiDouble", environment: dict[str, str]) -> None:
    double.on("GET", MODELS, double.page("models", *(double.model(f"cm-{n}", "x" * 100) for n in range(2000))))
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run(
        [*COMMAND, "models", "list"], env=environment, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)

    assert (done.returncode, done.stderr) == (1, "")


def _on_a_terminal(args: list[str], env: dict[str, str]) -> str:
    """All that the command writes when its standard output is a terminal."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen([*COMMAND, *args], env=env, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal)
    os.close(terminal)
    pieces: list[bytes] = []
    while True:
        try:
            piece = os.read(controller, 65536)
        except OSError:  # Linux tells the end of a terminal like this
            break
        if not piece:
            break
        pieces.append(piece)
    assert process.wait() == 0
    os.close(controller)
    return b"".join(pieces).decode()
