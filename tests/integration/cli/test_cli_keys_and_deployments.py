"""dockyard keys and deployments: names looked up, the right routes called."""

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import ApiDouble, Cli

APP = {"appId": "app-1", "name": "ci", "scopes": ["View"], "createdOn": "2026-02-05T11:58:03.638Z"}
KEY = {"keyId": "ak-1", "name": "cli", "key": "kg-secret", "createdOn": "2026-02-05T11:58:03.638Z"}
DEPLOYMENTS = "/api/public/deployments"


def deployment(deployment_id: str = "dp-1", state: str = "Deployed", **fields: Any) -> dict[str, Any]:
    return {"deploymentId": deployment_id, "name": "flan", "state": state, "modelId": "cm-1", **fields}


@pytest.fixture(autouse=True)
def _things(double: "ApiDouble") -> None:
    double.on("GET", "/api/public/apps", double.page("apps", APP))
    double.on("GET", DEPLOYMENTS, double.page("deployments", deployment("dp-0", "Undeployed"), deployment()))


def test_a_new_key_is_all_that_a_pipe_gets(cli: "Cli", double: "ApiDouble") -> None:
    double.on("POST", "/api/public/apps/app-1/keys", KEY)

    result = cli("keys", "create", "--app", "ci", "--name", "runner")

    assert result.stdout == "kg-secret\n"
    assert "not shown again" in result.stderr
    assert double.seen[-1].body == {"name": "runner"}


def test_an_inference_key_of_a_deployment_by_name_prefers_the_live_one(cli: "Cli", double: "ApiDouble") -> None:
    double.on("POST", f"{DEPLOYMENTS}/dp-1/keys", KEY)

    assert cli("keys", "create", "--deployment", "flan").exit_code == 0


@pytest.mark.parametrize("args", [(), ("--app", "ci", "--deployment", "flan")])
def test_a_key_belongs_to_one_thing(cli: "Cli", args: tuple[str, ...]) -> None:
    assert cli("keys", "list", *args).exit_code == 2


def test_a_key_is_revoked_by_its_id(cli: "Cli", double: "ApiDouble") -> None:
    double.on("DELETE", "/api/public/apps/app-1/keys/ak-1", {})

    assert cli("keys", "revoke", "ak-1", "--app", "app-1").stdout == "revoked ak-1\n"


def test_an_app_is_made_with_scopes(cli: "Cli", double: "ApiDouble") -> None:
    double.on("POST", "/api/public/apps", APP)

    assert cli("keys", "apps", "create", "ci", "--scope", "View", "--scope", "Infer").exit_code == 0
    assert double.seen[-1].body == {"name": "ci", "scopes": ["View", "Infer"]}
    assert cli("keys", "apps", "create", "ci").exit_code == 2


def test_an_app_is_changed_and_deleted_by_name(cli: "Cli", double: "ApiDouble") -> None:
    double.on("PATCH", "/api/public/apps/app-1", APP)
    double.on("DELETE", "/api/public/apps/app-1", {})

    assert cli("keys", "apps", "change", "ci", "--scope", "View").exit_code == 0
    assert cli("keys", "apps", "delete", "ci").exit_code == 0
    assert [seen.method for seen in double.seen] == ["GET", "PATCH", "GET", "DELETE"]


def test_logs_name_the_replica_of_each_line(cli: "Cli", double: "ApiDouble") -> None:
    logs = {"logs": [{"replicaId": "rp-12345678-abcd", "lines": ["loaded", "ready"]}]}
    double.on("GET", f"{DEPLOYMENTS}/dp-1/logs", logs)

    result = cli("deployments", "logs", "flan", "-n", "5")

    assert result.stdout == "rp-12345678  loaded\nrp-12345678  ready\n"
    assert double.seen[-1].query == {"lines": "5"}


def test_rollback_sends_the_number(cli: "Cli", double: "ApiDouble") -> None:
    double.on("POST", f"{DEPLOYMENTS}/dp-1/rollback", {"dockStatusId": "ds-1"})

    assert cli("deployments", "rollback", "flan", "2").stdout == "ds-1\n"
    assert double.seen[-1].body == {"version": 2}


def test_the_timeout_is_set(cli: "Cli", double: "ApiDouble") -> None:
    double.on("PATCH", f"{DEPLOYMENTS}/dp-1", deployment(endpointTimeout=90))

    assert cli("deployments", "set-timeout", "flan", "90").exit_code == 0
    assert double.seen[-1].body == {"endpointTimeout": 90}


@pytest.mark.parametrize(
    ("command", "plural"), [("replicas", "replicas"), ("events", "events"), ("versions", "versions")]
)
def test_the_lists_of_a_deployment(cli: "Cli", double: "ApiDouble", command: str, plural: str) -> None:
    document = double.page(plural, {"replicaId": "rp-1", "message": "a\tb"})
    double.on("GET", f"{DEPLOYMENTS}/dp-1/{command}", document)

    assert json.loads(cli("deployments", command, "flan", "--json").stdout) == document
    assert len(cli("deployments", command, "flan").stdout.splitlines()) == 1
