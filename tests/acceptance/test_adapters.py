"""Fine-tunes as adapters: imported on a base, merged once, served by both engines as what merged weights say."""

from pathlib import Path
from typing import Any

from tests.acceptance.server import Server, body
from tests.tiny_adapters import write_adapter, write_base, write_merged

PROMPT = "In the beginning God created"
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 12}


def bring(server: Server, name: str, folder: Path, **fields: Any) -> str:
    wish = {"name": name, "modelType": "fineTune", "source": {"path": str(folder)}, **fields}
    accepted = server.post("/models", wish)
    server.wait(accepted["dockStatusId"])
    return accepted["modelId"]


def test_a_deployed_adapter_says_what_merged_weights_say(bare_data_dir: Path, tmp_path: Path) -> None:
    with Server(bare_data_dir) as server:
        base_id, llama_id = begin(server, "llama", tmp_path, "", "ctranslate2")
        begin(server, "gpt2", tmp_path, "ctranslate2")
        assert server.get(f"/models/{llama_id}")["card"]["adapter"]["rank"] == 4
        for job in server.get("/dock-status?limit=200")["dockStatuses"]:
            server.wait(job["dockStatusId"])
        for family, names in (("llama", ("llama", "llama ctranslate2")), ("gpt2", ("gpt2 ctranslate2",))):
            expected = server.complete(f"{family} by hand", PROMPT, **GREEDY)
            assert [server.complete(name, PROMPT, **GREEDY) for name in names] == [expected] * len(names)
        assert chat(server, "llama ctranslate2") == chat(server, "llama by hand")

        refused = server.call("DELETE", f"/models/{base_id}").json()["errors"][0]
        assert (refused["reason"], llama_id in refused["msg"]) == ("BASE_MODEL_IN_USE", True)
        server.wait(server.post(f"/models/{llama_id}/undeploy")["dockStatusId"])
        planned = server.post("/artifacts/prune?unusedDays=0&dryRun=true")
        assert [one["cause"] for one in planned["artifacts"]] == ["UNUSED", "UNUSED"]  # merged, and converted
        freed = server.call("DELETE", f"/models/{llama_id}").json()["freedBytes"]
        assert freed > planned["freedBytes"] > 0
        assert server.call("DELETE", f"/models/{base_id}").json()["freedBytes"] > 0


def begin(server: Server, family: str, folder: Path, *engines: str) -> tuple[str, str]:
    """Import base, adapter, and both merged by hand; deploy the adapter on `engines`. Returns base and adapter."""
    base, adapter = write_base(folder / f"{family}-base", family), write_adapter(folder / f"{family}-adapter", family)
    base_id = bring(server, f"{family} base", base)
    adapter_id = bring(server, f"{family} adapter", adapter, baseModelId=base_id)
    by_hand_id = bring(server, f"{family} by hand", write_merged(folder / f"{family}-merged", base, adapter))
    server.begin_deploy(by_hand_id, body(f"{family} by hand"), "fineTune")
    for engine in engines:
        server.begin_deploy(adapter_id, body(f"{family} {engine}".strip(), engine), "fineTune")
    return base_id, adapter_id


def chat(server: Server, deployment: str) -> str:
    messages = [{"role": "user", "content": PROMPT}]
    reply = server.call("POST", "/v1/chat/completions", json={"model": deployment, "messages": messages, **GREEDY})
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["message"]["content"]
