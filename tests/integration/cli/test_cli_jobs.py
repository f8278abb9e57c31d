"""Watching a job: a line per change, exit codes, Ctrl-C, a server that is away for a while."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dockyard.cli.client import Client
from dockyard.cli.failures import Unreachable
from dockyard.cli.watch import job_states

if TYPE_CHECKING:
    from conftest import ApiDouble, Cli

JOB = "/api/public/dock-status/ds-1"
COMMAND = (sys.executable, "-c", "from dockyard.cli.main import main; main()")


def test_a_watch_prints_a_line_per_change_and_ends_well(cli: "Cli", double: "ApiDouble") -> None:
    double.on("GET", JOB, double.job("IN_PROGRESS"), double.job("IN_PROGRESS"), double.job())

    result = cli("status", "ds-1", "--watch")

    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "IN_PROGRESS\tOPTIMIZING\t40%\tit serves",
        "SUCCESS\tDONE\t100%\tit serves",
    ]


def test_a_watch_with_json_prints_the_ended_job_alone(cli: "Cli", double: "ApiDouble") -> None:
    double.on("GET", JOB, double.job("IN_PROGRESS"), double.job())

    assert json.loads(cli("status", "ds-1", "--watch", "--json").stdout) == double.job()


def test_a_failed_job_is_exit_code_1_watched_or_not(cli: "Cli", double: "ApiDouble") -> None:
    double.on("GET", JOB, double.job("FAILED", reason="TIMED_OUT", message="too slow"))

    for args in (("status", "ds-1"), ("status", "ds-1", "--watch"), ("status", "ds-1", "--json")):
        result = cli(*args)
        assert result.exit_code == 1
        assert "too slow (TIMED_OUT)" in result.stderr


def test_an_unknown_job_is_told(cli: "Cli", double: "ApiDouble") -> None:
    double.on("GET", JOB, double.refusal(404, "there is no dock status ds-1", "NOT_FOUND"))

    result = cli("status", "ds-1", "--watch")

    assert result.exit_code == 1
    assert "there is no dock status ds-1" in result.stderr


def test_ctrl_c_leaves_the_job_and_says_how_to_watch_it_again(double: "ApiDouble", environment: dict[str, str]) -> None:
    double.on("GET", JOB, double.job("IN_PROGRESS"))
    process = subprocess.Popen(
        [*COMMAND, "status", "ds-1", "--watch"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert double.arrived.wait(30)

    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)

    assert process.returncode == 130
    assert "dockyard status ds-1 --watch" in err
    assert "Traceback" not in err
    assert all(seen.method == "GET" for seen in double.seen)


def test_cancel_asks_for_the_end(cli: "Cli", double: "ApiDouble") -> None:
    cancelled = double.job("FAILED", reason="CANCELLED", message="somebody cancelled it")
    double.on("POST", f"{JOB}/cancel", double.job("IN_PROGRESS"))
    double.on("GET", JOB, cancelled)

    result = cli("status", "ds-1", "--cancel", "--watch")

    assert result.exit_code == 1
    assert "CANCELLED" in result.stderr
    assert double.seen[0].path == f"{JOB}/cancel"


def test_the_list_of_jobs_is_filtered_by_the_server(cli: "Cli", double: "ApiDouble") -> None:
    double.on("GET", "/api/public/models/cm-1", double.model())
    double.on("GET", "/api/public/dock-status", double.page("dockStatuses", double.job()))

    result = cli("status", "--model", "cm-1", "--status", "FAILED", "--limit", "3")

    assert result.exit_code == 0
    assert result.stdout.startswith("ds-1\tDEPLOY\tSUCCESS")
    assert double.seen[-1].query == {"modelId": "cm-1", "status": "FAILED", "limit": "3"}


def test_watch_without_an_id_is_wrong_usage(cli: "Cli") -> None:
    assert cli("status", "--watch").exit_code == 2


def test_a_server_that_is_started_again_is_waited_for(double: "ApiDouble") -> None:
    double.on("GET", JOB, double.job("IN_PROGRESS"), double.job())
    client = _Away(double.url, times=3)

    states = [state["status"] for state in job_states(client, "ds-1", lambda _: None)]
    client.close()

    assert states == ["IN_PROGRESS", "SUCCESS"]


class _Away(Client):
    """A server that is away for some polls after the first."""

    def __init__(self, url: str, times: int) -> None:
        super().__init__(url, None)
        self._left = times
        self._asked = False

    def get(self, *path: str, **params: object) -> dict[str, object]:
        if self._asked and self._left:
            self._left -= 1
            raise Unreachable(self.url, "away")
        self._asked = True
        return super().get(*path, **params)


def test_import_waits_and_names_the_model_by_its_path(cli: "Cli", double: "ApiDouble", tmp_path: Path) -> None:
    double.on("POST", "/api/public/models", {"modelId": "cm-1", "dockStatusId": "ds-1"})
    double.on("GET", JOB, double.job(action="IMPORT"))
    double.on("GET", "/api/public/models", double.page("models"))

    result = cli("models", "import", str(tmp_path / "smol-1.5.gguf"), "--type", "fineTune")

    assert result.exit_code == 0
    assert double.bodies("POST", "/api/public/models") == [
        {"name": "smol-1.5", "modelType": "fineTune", "source": {"path": str(tmp_path / "smol-1.5.gguf")}}
    ]
    assert "cm-1" in result.stderr


def test_import_without_waiting_prints_the_job(cli: "Cli", double: "ApiDouble") -> None:
    double.on("POST", "/api/public/models", {"modelId": "cm-1", "dockStatusId": "ds-1"})

    result = cli("models", "import", "/models/t5-v1.1", "--no-wait")

    assert result.stdout == "ds-1\n"
    assert double.bodies("POST", "/api/public/models")[0]["name"] == "t5-v1.1"
