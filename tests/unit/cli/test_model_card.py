"""A model as a person reads it."""

from typing import Any

from dockyard.cli.model_card import readable_model

CARD: dict[str, Any] = {
    "architecture": "LlamaForCausalLM",
    "family": "decoder",
    "parameters": 134_515_008,
    "activeParameters": None,
    "weightsBytes": 269_030_016,
    "dtype": "float16",
    "contextLength": 8192,
    "slidingWindow": None,
    "vocabSize": 49152,
    "layers": 30,
    "tokenizerKind": "BPE",
    "tokenizerSize": 49152,
    "chatTemplate": True,
    "generationDefaults": {"temperature": 0.7, "top_p": 0.9},
    "eosTokenIds": [2],
    "licence": "apache-2.0",
    "adapter": None,
}
MODEL: dict[str, Any] = {
    "modelId": "cm-1",
    "name": "SmolLM2",
    "modelType": "openSource",
    "state": "Ready to Deploy",
    "source": {"path": "/srv/smollm2"},
    "baseModelId": None,
    "sizeBytes": 271_000_000,
    "card": CARD,
    "reason": None,
    "message": None,
    "createdOn": "2026-02-05T11:58:03.638Z",
    "lMod": "2026-02-05T11:58:03.638Z",
}


def test_a_model_that_is_ready() -> None:
    assert readable_model(MODEL) == {
        "name": "SmolLM2",
        "id": "cm-1",
        "state": "Ready to Deploy",
        "type": "openSource",
        "source": "path /srv/smollm2",
        "architecture": "LlamaForCausalLM (decoder, 30 layers)",
        "parameters": "134.5 M",
        "weights": "256.6 MiB in float16",
        "context": "8,192 tokens",
        "tokenizer": "BPE, 49,152 entries",
        "vocabulary": "49,152 tokens",
        "chat template": "yes",
        "generation": "temperature 0.7, top_p 0.9",
        "end tokens": "2",
        "licence": "apache-2.0",
        "size on disk": "258.4 MiB",
        "imported": "2026-02-05T11:58:03.638Z",
    }


def test_a_model_that_failed_says_why_and_has_no_card() -> None:
    failed = {**MODEL, "state": "Import Failed", "card": None, "sizeBytes": 0, "message": "no config.json"}
    shown = readable_model({**failed, "reason": "CONFIG_MISSING"})
    assert (shown["reason"], shown["message"]) == ("CONFIG_MISSING", "no config.json")
    assert not shown.keys() & {"architecture", "size on disk"}


def test_what_is_not_usual_is_told() -> None:
    odd = {
        "parameters": 46_702_792_704,
        "activeParameters": 12_879_425_536,
        "contextLength": None,
        "slidingWindow": 4096,
        "chatTemplate": False,
        "tokenizerSize": None,
        "licence": None,
        "generationDefaults": {},
        "adapter": {"rank": 8, "parameters": 1000, "modules": ["q_proj", "v_proj"]},
    }
    shown = readable_model({**MODEL, "card": {**CARD, **odd}})
    assert shown["parameters"] == "46.7 B, 12.88 B of them for each token"
    assert shown["context"] == "no bound of its own, of which some layers see the last 4,096"
    assert shown["chat template"].startswith("no")
    assert shown["tokenizer"] == "BPE"
    assert shown["licence"] == "not told by the files"
    assert shown["adapter"] == "rank 8 on q_proj, v_proj"
    assert "generation" not in shown
