"""The matrix through the whole product: a model on both engines, one that is served in part, one that is refused."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.acceptance.server import Server, body

ROOT = Path(__file__).parents[2]
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 8}
PROMPT = "In the beginning God created the heaven and the earth."
# In a process of its own, as it imports torch.
MAKE = (
    "import sys; from pathlib import Path; from tests.integration.matrix_models import CONFIGS, make; "
    "[make(name, CONFIGS[name], Path(sys.argv[1]) / name) for name in sys.argv[2:]]"
)
BART, PHI3, MIXTRAL = "BartForConditionalGeneration", "Phi3ForCausalLM", "MixtralForCausalLM"


def test_what_the_matrix_says_is_what_a_client_gets(bare_data_dir: Path, tmp_path: Path) -> None:
    names = (BART, PHI3, MIXTRAL)
    subprocess.run([sys.executable, "-W", "ignore", "-c", MAKE, str(tmp_path), *names], cwd=ROOT, check=True)
    with Server(bare_data_dir) as server:
        models = {name: bring(server, name, tmp_path / name) for name in names}
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
