"""dockyard models delete and prune, dockyard deploy --from-export: what is asked of the API, what a person reads."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import ApiDouble, Cli

PRUNE = "/api/public/artifacts/prune"
MODEL, DEPLOY = "/api/public/models/cm-1", "/api/public/models/cm-1/deploy"
CONFIG: dict[str, Any] = {
    "name": "dates",
    "modelType": "fineTune",
    "hyperParameters": {"temperature": 0.5, "maxTokens": 64, "topP": 1, "topK": 7, "stopSequence": []},
    "scalingParameters": {"maxBatchSize": 3, "minReplicas": 1, "maxReplicas": 4},
    "deviceType": "g5.xlarge",
    "optimizationInfo": {"optimizationType": "ctranslate2", "quantizationType": "int8_float16"},
    "baseModel": {"artifactKey": "ab", "name": "base"},
}
SENT = {name: value for name, value in CONFIG.items() if name not in ("modelType", "baseModel")}


def reply(dry_run: bool) -> dict[str, Any]:
    one = {
        "artifactKey": "ab" * 32,
        "cause": "UNUSED",
        "sizeBytes": 3 << 20,
        "engine": "ctranslate2",
        "quantization": "int8_float16",
        "models": ["Flan T5"],
        "lastUsedOn": "2026-02-05T11:58:03.638Z",
    }
    return {"dryRun": dry_run, "freedBytes": 3 << 20, "artifacts": [one]}


def test_a_dry_run_lists_what_would_go(cli: "Cli", double: "ApiDouble") -> None:
    double.on("POST", PRUNE, reply(dry_run=True))
    result = cli("models", "prune", "--dry-run")
    assert double.seen[-1].query == {"dryRun": "true"}
    line = f"{'ab' * 32}\tUNUSED\tFlan T5\tctranslate2\tint8_float16\t3.0 MiB\n"
    assert (result.exit_code, result.stdout) == (0, line)
    assert "3.0 MiB would be freed; nothing was removed" in result.stderr


def test_pruning_says_how_much_it_freed(cli: "Cli", double: "ApiDouble") -> None:
    double.on("POST", PRUNE, reply(dry_run=False))
    result = cli("models", "prune", "--unused-days", "0")
    assert double.seen[-1].query == {"unusedDays": "0"}
    assert "3.0 MiB freed" in result.stderr
    double.on("POST", PRUNE, {"dryRun": False, "freedBytes": 0, "artifacts": []})
    nothing = cli("models", "prune").stderr
    assert "nothing to prune; --unused-days 0" in nothing
    assert "dockyard models delete" in nothing
    assert "freed" not in nothing
    assert "--unused-days" not in cli("models", "prune", "--unused-days", "0").stderr  # what was done helps no more


@pytest.mark.parametrize(
    ("size", "freed", "told", "shared"),
    [
        (3 << 20, 3 << 20, "3.0 MiB", False),
        (3 << 20, 1 << 10, "1.0 KiB", False),
        (3 << 20, 0, "0 bytes", True),
        (None, 0, "0 bytes", False),
    ],
)
def test_a_delete_says_what_it_freed(
    cli: "Cli", double: "ApiDouble", size: int | None, freed: int, told: str, shared: bool
) -> None:
    double.on("GET", MODEL, double.model(sizeBytes=size))
    double.on("DELETE", MODEL, {"freedBytes": freed})
    result = cli("models", "delete", "cm-1")
    assert result.stdout == f"deleted Flan T5 (cm-1), {told} freed\n"
    assert ("another model shares them" in result.stderr) == shared


def test_a_deploy_as_it_was_exported_needs_no_flags(cli: "Cli", double: "ApiDouble") -> None:
    double.on("GET", MODEL, double.model(modelType="fineTune", deployConfig=CONFIG))
    double.on("POST", DEPLOY, {"dockStatusId": "ds-1"})
    assert cli("deploy", "cm-1", "--from-export").exit_code == 0
    assert double.bodies("POST", DEPLOY) == [SENT]


def test_a_file_wins_over_the_export_and_flags_over_both(cli: "Cli", double: "ApiDouble", tmp_path: Path) -> None:
    double.on("GET", MODEL, double.model(deployConfig=CONFIG))
    double.on("POST", DEPLOY, {"dockStatusId": "ds-1"})
    file = tmp_path / "deploy.json"
    file.write_text(json.dumps({"name": "mine", "hyperParameters": {"topK": 9, "maxTokens": 5}}))
    assert cli("deploy", "cm-1", "--from-export", "-f", str(file), "--max-tokens", "8").exit_code == 0
    hyper = {**CONFIG["hyperParameters"], "topK": 9, "maxTokens": 8}
    assert double.bodies("POST", DEPLOY) == [{**SENT, "name": "mine", "hyperParameters": hyper}]


def test_a_model_that_came_from_no_export_says_what_to_do(cli: "Cli", double: "ApiDouble") -> None:
    double.on("GET", MODEL, double.model(deployConfig=None))
    result = cli("deploy", "cm-1", "--from-export")
    assert result.exit_code == 1
    assert "Flan T5 was not imported from an export" in result.stderr
    assert "--device" in result.stderr
