"""The matrix through the whole product: a model on both engines, one that is served in part, one that is refused."""

from pathlib import Path
from typing import Any

from tests.acceptance.server import Server, body

GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 8}
PROMPT = "In the beginning God created the heaven and the earth."
BART, PHI3, MIXTRAL = "BartForConditionalGeneration", "Phi3ForCausalLM", "MixtralForCausalLM"


def test_what_the_matrix_says_is_what_a_client_gets(bare_data_dir: Path, matrix_models: Path) -> None:
    names = (BART, PHI3, MIXTRAL)
    with Server(bare_data_dir) as server:
        models = {name: bring(server, name, matrix_models / "models" / name) for name in names}
        jobs = [server.begin_deploy(models[BART], body(engine or "plain", engine)) for engine in ("", "ctranslate2")]
        for job in jobs:
            server.wait(job)
        said = server.complete("plain", PROMPT, **GREEDY)
        assert said
        assert server.complete("ctranslate2", PROMPT, **GREEDY) == said
        refused = server.call("POST", "/v1/completions", json={"model": "plain", "prompt": PROMPT * 9, **GREEDY})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "CONTEXT_LENGTH_EXCEEDED")

        plan = server.post(f"/models/{models[PHI3]}/deploy?modelType=openSource&dryRun=true", body("x", "ctranslate2"))
        assert plan["memory"]["contextLength"] == 56  # its sliding window
        reply = server.call(
            "POST",
            f"/models/{models[MIXTRAL]}/deploy?modelType=openSource",
            json=body("mixtral", "ctranslate2"),
        )
        assert reply.status_code == 400
        [problem] = reply.json()["errors"]
        assert problem["reason"] == "ENGINE_DOES_NOT_SUPPORT_ARCHITECTURE"
        assert "optimizationType that can: ''" in problem["msg"]


def bring(server: Server, name: str, folder: Path) -> str:
    wish = {"name": name, "modelType": "openSource", "source": {"path": str(folder)}}
    accepted = server.post("/models", wish)
    server.wait(accepted["dockStatusId"])
    return accepted["modelId"]
