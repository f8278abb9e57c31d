"""dockyard deploy and undeploy: the body that is sent, names looked up, files and flags, dry run."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import ApiDouble, Cli

MODELS = "/api/public/models"
DEPLOY = f"{MODELS}/cm-1/deploy"
REPLY = {"dock-statusId": "ds-1", "dockStatusId": "ds-1", "modelId": "cm-1", "action": "DEPLOY"}


@pytest.fixture(autouse=True)
def _one_model(double: "ApiDouble") -> None:
    model = double.model(modelType="fineTune")
    double.on("GET", f"{MODELS}/cm-1", model)
    double.on("GET", MODELS, double.page("models", model, double.model("cm-2", "gpt2"), double.model("cm-3", "gpt2")))
    double.on("POST", DEPLOY, REPLY)
    double.on("GET", "/api/public/dock-status/ds-1", double.job())


def test_the_least_that_is_needed_has_the_published_sample_s_defaults(cli: "Cli", double: "ApiDouble") -> None:
    result = cli("deploy", "Flan T5", "--name", "flan", "--device", "g5.xlarge")

    assert (result.exit_code, result.stdout) == (0, "ds-1\n")
    assert "dockyard status ds-1 --watch" in result.stderr
    assert double.seen[-1].query == {"modelType": "fineTune"}
    assert double.bodies("POST", DEPLOY) == [
        {
            "name": "flan",
            "deviceType": "g5.xlarge",
            "hyperParameters": {"temperature": 1, "maxTokens": 512, "topP": 1, "topK": 50},
        }
    ]


def test_each_flag_becomes_its_field(cli: "Cli", double: "ApiDouble") -> None:
    flags = (
        "--name a --device g4dn.xlarge --optimization ctranslate2 --quantization int8_float16 --temperature 0 "
        "--max-tokens 64 --top-p 0.5 --top-k 7 --stop END --stop ### --max-batch-size 4 --min-replicas 2 "
        "--max-replicas 3 --scale-up-delay 10 --scale-down-delay 100"
    )

    assert cli("deploy", "cm-1", *flags.split()).exit_code == 0

    assert double.bodies("POST", DEPLOY)[0] == {
        "name": "a",
        "deviceType": "g4dn.xlarge",
        "hyperParameters": {
            "temperature": 0.0,
            "maxTokens": 64,
            "topP": 0.5,
            "topK": 7,
            "stopSequence": ["END", "###"],
        },
        "scalingParameters": {
            "maxBatchSize": 4,
            "minReplicas": 2,
            "maxReplicas": 3,
            "scaleUpDelay": 10,
            "scaleDownDelay": 100,
        },
        "optimizationInfo": {"optimizationType": "ctranslate2", "quantizationType": "int8_float16"},
    }


@pytest.mark.parametrize("by_pipe", [False, True])
def test_flags_win_over_the_file_and_the_file_over_the_defaults(
    cli: "Cli", double: "ApiDouble", tmp_path: Path, by_pipe: bool
) -> None:
    body: dict[str, Any] = {
        "name": "from file",
        "deviceType": "g5.xlarge",
        "hyperParameters": {"temperature": 0.3, "topK": 9},
        "isDeployedPreviously": True,
    }
    file = tmp_path / "deploy.json"
    file.write_text(json.dumps(body))

    cli(
        *("deploy", "cm-1", "-f", "-" if by_pipe else str(file), "--name", "from flag", "--top-k", "11"),
        stdin=json.dumps(body) if by_pipe else None,
    )

    assert double.bodies("POST", DEPLOY) == [
        {
            **body,
            "name": "from flag",
            "hyperParameters": {"temperature": 0.3, "maxTokens": 512, "topP": 1, "topK": 11},
        }
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [("{", "is no JSON"), ("[]", "must hold a JSON object"), ('{"hyperParameters": 3}', "must be a JSON object")],
)
def test_a_file_that_is_no_deploy_request_is_wrong_usage(cli: "Cli", tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "deploy.json"
    file.write_text(content)

    result = cli("deploy", "cm-1", "-f", str(file))

    assert result.exit_code == 2
    assert says in result.stderr


def test_a_file_that_is_not_there_is_wrong_usage(cli: "Cli") -> None:
    assert cli("deploy", "cm-1", "-f", "/nowhere.json").exit_code == 2


def test_without_name_and_device_nothing_is_sent(cli: "Cli", double: "ApiDouble") -> None:
    result = cli("deploy", "cm-1")

    assert result.exit_code == 2
    assert "--name and --device" in result.stderr
    assert double.seen == []


def test_a_name_of_several_models_lists_them(cli: "Cli", double: "ApiDouble") -> None:
    result = cli("deploy", "gpt2", "--name", "a", "--device", "g5.xlarge")

    assert result.exit_code == 2
    assert "2 models are named 'gpt2'" in result.stderr
    assert "cm-2" in result.stderr
    assert "cm-3" in result.stderr
    assert double.bodies("POST", DEPLOY) == []


def test_a_name_of_no_model_says_where_to_look(cli: "Cli") -> None:
    result = cli("deploy", "nothing", "--name", "a", "--device", "g5.xlarge")

    assert result.exit_code == 1
    assert "dockyard models list" in result.stderr


def test_a_dry_run_prints_the_plan(cli: "Cli", double: "ApiDouble") -> None:
    double.on("POST", DEPLOY, {"engine": "ctranslate2", "memory": {"weightsBytes": 7}, "warnings": []})

    result = cli("deploy", "cm-1", "--name", "a", "--device", "g5.xlarge", "--dry-run")

    assert result.exit_code == 0
    assert double.seen[-1].query["dryRun"] == "true"
    assert "without --dry-run" in result.stderr
    assert result.stdout.splitlines() == ["engine\tctranslate2", "memory.weightsBytes\t7", "warnings\t-"]


def test_wait_ends_with_the_job(cli: "Cli", double: "ApiDouble") -> None:
    failed = double.job(
        "FAILED", phase="LOADING", reason="OUT_OF_MEMORY", message="it was killed", logTail=["bad_alloc"]
    )
    double.on("GET", "/api/public/dock-status/ds-1", double.job("IN_PROGRESS"), failed)

    result = cli("deploy", "cm-1", "--name", "a", "--device", "g5.xlarge", "--wait")

    assert result.exit_code == 1
    assert "error: the deploy failed in phase LOADING: it was killed (OUT_OF_MEMORY)" in result.stderr
    assert "| bad_alloc" in result.stderr


@pytest.mark.parametrize(("template", "told"), [(True, "chat 'a b' 'TEXT'"), (False, "chat --completion 'a b' 'TEXT'")])
def test_what_serves_can_be_asked(cli: "Cli", double: "ApiDouble", template: bool, told: str) -> None:
    double.on("GET", f"{MODELS}/cm-1", double.model(card={"chatTemplate": template}))

    result = cli("deploy", "cm-1", "--name", "a b", "--device", "g5.xlarge", "--wait")

    assert f"ask it with: dockyard {told}" in result.stderr


def test_warnings_of_the_reply_are_told(cli: "Cli", double: "ApiDouble") -> None:
    double.on("POST", DEPLOY, {**REPLY, "warnings": ["unknown field 'x' was ignored"]})

    assert "warning: unknown field 'x'" in cli("deploy", "cm-1", "--name", "a", "--device", "g5.xlarge").stderr


def test_undeploy_one_by_name(cli: "Cli", double: "ApiDouble") -> None:
    double.on("POST", f"{MODELS}/cm-1/undeploy", {**REPLY, "action": "UNDEPLOY"})

    result = cli("undeploy", "Flan T5", "--name", "flan", "--wait")

    assert result.exit_code == 0
    assert double.seen[-2].query == {"name": "flan"}
    assert "dockyard models delete" not in result.stderr


def test_an_undeployed_model_stays_and_that_is_told(cli: "Cli", double: "ApiDouble") -> None:
    double.on("POST", f"{MODELS}/cm-1/undeploy", {**REPLY, "action": "UNDEPLOY"})

    assert "dockyard models delete cm-1" in cli("undeploy", "cm-1", "--wait").stderr
