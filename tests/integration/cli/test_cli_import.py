"""`dockyard models import`: what is asked of the API, and what the person reads next."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.cli.conftest import ApiDouble, Cli

MODELS = "/api/public/models"
JOB = "/api/public/dock-status/ds-1"
ACCEPTED = {"modelId": "cm-1", "dockStatusId": "ds-1"}


def test_a_repository_of_the_hub(cli: "Cli", double: "ApiDouble") -> None:
    double.on("POST", MODELS, ACCEPTED)
    double.on("GET", JOB, double.job(action="IMPORT"))
    double.on("GET", MODELS, double.page("models", double.model(name="Smol-LM")))
    result = cli("models", "import", "org/Smol-LM", "--revision", "v1")
    assert result.exit_code == 0
    source = {"huggingFace": "org/Smol-LM", "revision": "v1"}
    assert double.bodies("POST", MODELS) == [{"name": "Smol-LM", "modelType": "openSource", "source": source}]
    assert "org/Smol-LM is no path here, so it is the hub's" in result.stderr
    assert "dockyard deploy Smol-LM --name Smol-LM --device g5.xlarge" in result.stderr


def test_what_comes_next_is_fit_for_a_shell(cli: "Cli", double: "ApiDouble") -> None:
    double.on("POST", MODELS, ACCEPTED)
    double.on("GET", JOB, double.job(action="IMPORT"))
    double.on("GET", MODELS, double.page("models", double.model(name="Flan T5 (date)")))
    result = cli("models", "import", "hf:org/t5", "--name", "Flan T5 (date)")
    assert "dockyard deploy 'Flan T5 (date)' --name Flan-T5-date --device" in result.stderr
    assert "--dry-run" in result.stderr
    assert "no path here" not in result.stderr


@pytest.mark.parametrize(
    ("others", "named"),
    [((), "t5"), (("Import Failed",), "t5"), (("Ready to Deploy",), "cm-1"), (("Importing",), "cm-1")],
)
def test_what_comes_next_names_the_one_model_that_was_imported(
    cli: "Cli", double: "ApiDouble", others: tuple[str, ...], named: str
) -> None:
    double.on("POST", MODELS, ACCEPTED)
    double.on("GET", JOB, double.job(action="IMPORT"))
    same = [double.model(f"cm-{number}", "t5", state=state) for number, state in enumerate(others, 2)]
    double.on("GET", MODELS, double.page("models", double.model(name="t5"), *same))
    assert f"dockyard deploy {named} --name t5" in cli("models", "import", "hf:org/t5").stderr


def test_a_key_that_may_not_look_at_models_imports_all_the_same(cli: "Cli", double: "ApiDouble") -> None:
    double.on("POST", MODELS, ACCEPTED)
    double.on("GET", JOB, double.job(action="IMPORT"))
    double.on("GET", MODELS, double.refusal(403, "this key may not", "MISSING_SCOPE"))
    result = cli("models", "import", "hf:org/t5")
    assert (result.exit_code, "dockyard deploy cm-1 --name t5" in result.stderr) == (0, True)


@pytest.mark.parametrize(
    ("reason", "hint"),
    [
        ("ARCHIVE_KIND_MISMATCH", "FILE.zip for a zip"),
        ("BASE_MODEL_MISSING", "--base MODEL"),
        ("ADAPTER_DOES_NOT_FIT", "--base MODEL"),
        ("DISK_FULL", "dockyard models prune"),
    ],
)
def test_a_failed_import_is_followed_by_what_to_do(cli: "Cli", double: "ApiDouble", reason: str, hint: str) -> None:
    double.on("POST", MODELS, ACCEPTED)
    double.on("GET", JOB, double.job("FAILED", action="IMPORT", reason=reason, message="it is so"))
    result = cli("models", "import", "hf:org/t5")
    assert result.exit_code == 1
    assert hint in result.stderr
    assert "dockyard models delete cm-1" in result.stderr


def test_an_archive_that_is_not_there_is_looked_for_on_this_machine(cli: "Cli", double: "ApiDouble") -> None:
    result = cli("models", "import", "no-such-file.tar")
    assert (result.exit_code, double.seen) == (1, [])
    assert "no-such-file.tar cannot be read: No such file or directory" in result.stderr
    assert "the machine that this command runs on" in result.stderr


def test_what_was_tuned_from_a_base_is_a_fine_tune(cli: "Cli", double: "ApiDouble") -> None:
    double.on("POST", MODELS, ACCEPTED)
    double.on("GET", f"{MODELS}/cm-9", double.model("cm-9"))
    for types in ((), ("--type", "openSource")):
        assert cli("models", "import", "hf:org/lora", "--base", "cm-9", "--no-wait", *types).exit_code == 0
    assert [body["modelType"] for body in double.bodies("POST", MODELS)] == ["fineTune", "openSource"]


def test_a_failed_import_says_how_to_go_on(cli: "Cli", double: "ApiDouble") -> None:
    double.on("POST", MODELS, ACCEPTED)
    told = "org/repo is gated: open its page"
    failed = double.job("FAILED", action="IMPORT", modelId="cm-1", message=told, reason="HUB_REPOSITORY_GATED")
    double.on("GET", JOB, failed)
    result = cli("models", "import", "hf:org/repo")
    assert result.exit_code == 1
    assert f"{told} (HUB_REPOSITORY_GATED)" in result.stderr
    assert "dockyard models delete cm-1" in result.stderr


def test_a_failed_model_is_shown_with_the_way_on(cli: "Cli", double: "ApiDouble") -> None:
    source = {"huggingFace": "org/repo", "revision": "main", "commit": "a" * 40}
    double.on("GET", f"{MODELS}/cm-1", double.model(state="Import Failed", source=source))
    result = cli("models", "show", "cm-1")
    assert f"source.commit\t{'a' * 40}" in result.stdout
    assert "dockyard models delete cm-1" in result.stderr


@pytest.mark.parametrize("arguments", [("hf:repo",), ("",), ("/srv/t5", "--revision", "main")])
def test_wrong_usage(cli: "Cli", arguments: tuple[str, ...]) -> None:
    assert cli("models", "import", *arguments).exit_code == 2
