"""Adapters judged from files alone: what fits its base, what is refused and why, and what merging writes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.tiny_adapters import merged_by_hand, write_adapter, write_base
from tests.unit.prepare.model_folders import tokenizer_text

from dockyard.errors import Failed, Reason
from dockyard.prepare.adapter_folder import describe_merged, is_adapter, look_at_adapter, plan_for
from dockyard.prepare.adapter_merge import TensorFile, merge_file
from dockyard.prepare.adapter_plan import is_tied

BASE_KEY = "b" * 64
WEIGHTS = "adapter_model.safetensors"
Bend = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


def merged(adapter: Path, base: Path, built: Path) -> dict[str, np.ndarray]:
    built.mkdir()
    with (adapter / WEIGHTS).open("rb") as file:
        merge_file(base, "model.safetensors", TensorFile(file, WEIGHTS), plan_for(adapter, base), built, lambda _: None)
    return load_file(built / "model.safetensors")


def bend(adapter: Path, change: Bend) -> Path:
    save_file(change(load_file(adapter / WEIGHTS)), adapter / WEIGHTS)
    return adapter


def refused(adapter: Path, base: Path, reason: Reason, words: str) -> None:
    with pytest.raises(Failed, match=words) as caught:
        plan_for(look_at_adapter(adapter).root, base)
    assert caught.value.reason is reason


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_merging_adds_what_the_textbook_says(family: str, tmp_path: Path) -> None:
    base, adapter = write_base(tmp_path / "base", family), write_adapter(tmp_path / "adapter", family)
    found = merged(adapter, base, tmp_path / "built")
    weights, lora = load_file(base / "model.safetensors"), load_file(adapter / WEIGHTS)
    for name, expected in merged_by_hand(weights, lora).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-6, atol=1e-6)
    changed = {name for name in weights if not np.array_equal(found[name], weights[name])}
    assert len(changed) == len(lora) // 2


def test_rank_stabilized_scales_and_patterns(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", "llama")
    patterns: dict[str, Any] = {
        "rank_pattern": {"^model.layers.0.self_attn.q_proj": 2},
        "alpha_pattern": {"self_attn\\.v_proj": 3},
    }
    adapter = write_adapter(tmp_path / "adapter", "llama", use_rslora=True, **patterns)
    narrow = "base_model.model.model.layers.0.self_attn.q_proj"

    def narrowed(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        down, up = f"{narrow}.lora_A.weight", f"{narrow}.lora_B.weight"
        return {**tensors, down: tensors[down][:2].copy(), up: tensors[up][:, :2].copy()}

    lora = load_file(bend(adapter, narrowed) / WEIGHTS)
    found, weights = merged(adapter, base, tmp_path / "built"), load_file(base / "model.safetensors")
    for module, scale in (
        ("model.layers.0.self_attn.q_proj", 16 / np.sqrt(2)),
        ("model.layers.1.self_attn.q_proj", 16 / 2),
        ("model.layers.1.self_attn.v_proj", 3 / 2),
    ):
        outer = f"base_model.model.{module}"
        added = scale * lora[f"{outer}.lora_B.weight"] @ lora[f"{outer}.lora_A.weight"]
        name = f"{module}.weight"
        np.testing.assert_allclose(found[name], weights[name] + added, rtol=1e-5, atol=1e-5)


def test_bfloat16_stays_and_is_rounded_to_the_nearest(tmp_path: Path) -> None:
    base, adapter = write_base(tmp_path / "base", "llama"), write_adapter(tmp_path / "adapter", "llama")
    weights = load_file(base / "model.safetensors")
    header, data = {}, b""
    for name, value in weights.items():
        stored = (value.view("<u4") >> 16).astype("<u2").tobytes()
        header[name] = {"dtype": "BF16", "shape": list(value.shape), "data_offsets": [len(data), len(data + stored)]}
        data += stored
        weights[name] = (np.frombuffer(stored, "<u2").astype("<u4") << 16).view("<f4").reshape(value.shape)
    text = json.dumps(header).encode()
    (base / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    built = tmp_path / "built"
    built.mkdir()
    with (adapter / WEIGHTS).open("rb") as file:
        merge_file(base, "model.safetensors", TensorFile(file, WEIGHTS), plan_for(adapter, base), built, lambda _: None)
    with (built / "model.safetensors").open("rb") as file:
        found = TensorFile(file, "model.safetensors")
        assert {entry.dtype for entry in found.entries} == {"BF16"}
        expected = merged_by_hand(weights, load_file(adapter / WEIGHTS))
        for entry in found.entries:
            np.testing.assert_allclose(found.whole(entry), expected[entry.name], rtol=1 / 256, atol=1e-6)


def test_what_was_trained_as_a_whole_replaces_the_base(tmp_path: Path) -> None:
    base, adapter = write_base(tmp_path / "base", "llama"), write_adapter(tmp_path / "adapter", "llama")
    head = np.full((2048, 32), 0.5, np.float16)
    bend(adapter, lambda tensors: {**tensors, "base_model.model.lm_head.weight": head})
    assert (merged(adapter, base, tmp_path / "built")["lm_head.weight"] == 0.5).all()


def test_the_card_is_that_of_the_two_together(tmp_path: Path) -> None:
    base, adapter = write_base(tmp_path / "base", "llama"), write_adapter(tmp_path / "adapter", "llama")
    card = describe_merged(adapter, base, BASE_KEY, tmp_path / "view")
    assert (card.architecture, card.vocab_size, card.chat_template) == ("LlamaForCausalLM", 2048, True)
    assert card.adapter is not None
    assert (card.adapter.base_key, card.adapter.rank) == (BASE_KEY, 4)
    assert card.adapter.modules == ("down_proj", "q_proj", "v_proj")
    own = sum(tensor.size for tensor in load_file(adapter / WEIGHTS).values())
    whole = sum(tensor.size for tensor in load_file(base / "model.safetensors").values())
    assert (card.adapter.parameters, card.parameters) == (own, whole)


@pytest.mark.parametrize(
    ("config", "bent", "plain"),
    [
        ({}, None, True),
        ({"use_rslora": True}, None, True),
        ({"alpha_pattern": {"q_proj": 8}}, None, False),
        ({"alpha_pattern": {"q_proj": 16}}, None, True),
        ({}, "base_model.model.lm_head.weight", False),
    ],
)
def test_an_adapter_that_vllm_can_add_as_it_computes(
    tmp_path: Path, config: dict[str, Any], bent: str | None, plain: bool
) -> None:
    base, adapter = write_base(tmp_path / "base", "llama"), write_adapter(tmp_path / "adapter", "llama", **config)
    if bent:
        bend(adapter, lambda tensors: {**tensors, bent: np.zeros((2048, 32), np.float16)})
    card = describe_merged(adapter, base, BASE_KEY, tmp_path / "view")
    assert card.adapter is not None
    assert card.adapter.plain is plain


def test_only_its_own_files_are_kept_and_a_tokenizer_of_its_own_wins(tmp_path: Path) -> None:
    base, adapter = write_base(tmp_path / "base", "llama"), write_adapter(tmp_path / "adapter", "llama")
    for name in ("training_args.bin", "optimizer.pt", "vocab.json"):  # as a trainer leaves them; no tokenizer.json
        (adapter / name).write_bytes(b"{}")
    assert is_adapter(adapter)
    assert not is_adapter(base)
    assert set(look_at_adapter(adapter).files) == {"README.md", "adapter_config.json", WEIGHTS}
    (adapter / "tokenizer.json").write_text(tokenizer_text())
    (adapter / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    (adapter / "vocab.json").unlink()
    (base / "generation_config.json").unlink(missing_ok=True)
    view = tmp_path / "view"
    describe_merged(adapter, base, BASE_KEY, view)
    assert (view / "tokenizer.json").read_text() == tokenizer_text()
    assert (view / "chat_template.jinja").is_file()
    assert not (view / "adapter_config.json").exists()


@pytest.mark.parametrize(
    ("config", "reason", "words"),
    [
        ({"peft_type": "IA3"}, Reason.ADAPTER_NOT_SUPPORTED, "'IA3'.*merge_and_unload"),
        ({"use_dora": True}, Reason.ADAPTER_NOT_SUPPORTED, "DoRA"),
        ({"lora_bias": True}, Reason.ADAPTER_NOT_SUPPORTED, "lora_bias"),
        ({"init_lora_weights": "pissa_niter_4"}, Reason.ADAPTER_NOT_SUPPORTED, "pissa"),
        ({"layer_replication": [[0, 1]]}, Reason.ADAPTER_NOT_SUPPORTED, "repeated layers"),
        ({"rank_pattern": {"(a|b)+": 4}}, Reason.ADAPTER_NOT_SUPPORTED, "expressions"),
        ({"r": 0}, Reason.ADAPTER_UNREADABLE, "r must be"),
        ({"lora_alpha": "16"}, Reason.ADAPTER_UNREADABLE, "lora_alpha"),
        ({"r": 8}, Reason.ADAPTER_DOES_NOT_FIT, "rank 4 and 4, adapter_config.json says 8"),
        ({"target_modules": ["q_proj", "c_attn"]}, Reason.ADAPTER_DOES_NOT_FIT, r"c_attn.*'org/tiny-llama'"),
    ],
)
def test_configs_that_are_refused(config: dict[str, Any], reason: Reason, words: str, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", "llama")
    adapter = write_adapter(tmp_path / "adapter", "llama")
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    refused(adapter, base, reason, words)


_Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        (lambda t: {k: v for k, v in t.items() if k != f"{_Q}.lora_B.weight"}, Reason.ADAPTER_DOES_NOT_FIT, "only one"),
        (lambda t: t | {f"{_Q}.lora_B.weight": np.ones((31, 4))}, Reason.ADAPTER_DOES_NOT_FIT, "64×32.*31×32"),
        (lambda t: t | {f"{_Q}.lora_magnitude_vector": np.ones(32)}, Reason.ADAPTER_NOT_SUPPORTED, "magnitude"),
        (lambda t: t | {"base_model.model.score.weight": np.ones(2)}, Reason.ADAPTER_DOES_NOT_FIT, "no score"),
        (lambda t: t | {"base_model.model.lm_head.weight": np.ones((9, 32))}, Reason.ADAPTER_DOES_NOT_FIT, "9×32"),
        (lambda _: {}, Reason.ADAPTER_DOES_NOT_FIT, "no LoRA matrices"),
    ],
)
def test_weights_that_are_refused(change: Bend, reason: Reason, words: str, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", "llama")
    refused(bend(write_adapter(tmp_path / "adapter", "llama"), change), base, reason, words)


def test_another_architecture_is_no_base(tmp_path: Path) -> None:
    base, adapter = write_base(tmp_path / "base", "gpt2"), write_adapter(tmp_path / "adapter", "llama")
    refused(adapter, base, Reason.ADAPTER_DOES_NOT_FIT, "the base has no model.layers.0.*baseModelId")


def test_a_head_that_is_the_embedding_is_not_changed_alone(tmp_path: Path) -> None:
    base, adapter = write_base(tmp_path / "base", "gpt2"), write_adapter(tmp_path / "adapter", "gpt2")
    head = np.ones((2048, 32), np.float32)
    bend(adapter, lambda tensors: {**tensors, "base_model.model.lm_head.weight": head})
    refused(adapter, base, Reason.ADAPTER_NOT_SUPPORTED, "lm_head.*merge_and_unload")


def test_pickled_and_absent_weights(tmp_path: Path) -> None:
    base, adapter = write_base(tmp_path / "base", "llama"), write_adapter(tmp_path / "adapter", "llama")
    (adapter / WEIGHTS).rename(adapter / "adapter_model.bin")
    refused(adapter, base, Reason.PICKLE_REFUSED, "adapter_model.bin")
    (adapter / "adapter_model.bin").unlink()
    refused(adapter, base, Reason.WEIGHTS_MISSING, WEIGHTS)


def test_an_adapter_that_overflows_is_refused(tmp_path: Path) -> None:
    base, adapter = write_base(tmp_path / "base", "llama"), write_adapter(tmp_path / "adapter", "llama")
    bend(adapter, lambda tensors: {name: np.full_like(value, np.nan) for name, value in tensors.items()})
    with pytest.raises(Failed, match="no numbers") as caught:
        merged(adapter, base, tmp_path / "built")
    assert caught.value.reason is Reason.ADAPTER_DOES_NOT_FIT


def test_a_tokenizer_that_grew_is_refused(tmp_path: Path) -> None:
    base, adapter = write_base(tmp_path / "base", "llama"), write_adapter(tmp_path / "adapter", "llama")
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 2048, "content": "<new>"})
    (adapter / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(Failed, match="2049 tokens and its base 2048") as caught:
        describe_merged(adapter, base, BASE_KEY, tmp_path / "view")
    assert caught.value.reason is Reason.ADAPTER_DOES_NOT_FIT


def test_names_with_and_without_the_body_s_prefix(tmp_path: Path) -> None:
    base, adapter = write_base(tmp_path / "base", "gpt2"), write_adapter(tmp_path / "adapter", "gpt2")
    with_prefix = plan_for(adapter, base)
    weights = {name.removeprefix("transformer."): v for name, v in load_file(base / "model.safetensors").items()}
    save_file(weights, base / "model.safetensors")
    assert {f"transformer.{name}" for name in plan_for(adapter, base)} == with_prefix.keys()


@pytest.mark.parametrize(
    ("config", "architecture", "tensors", "tied"),
    [
        ({}, "LlamaForCausalLM", ["lm_head.weight"], False),
        ({"tie_word_embeddings": True}, "LlamaForCausalLM", ["lm_head.weight"], True),
        ({}, "GPT2LMHeadModel", ["lm_head.weight"], True),  # stored all the same, and not looked at by who loads it
        ({"tie_word_embeddings": False}, "GPT2LMHeadModel", ["lm_head.weight"], False),
        ({"tie_word_embeddings": False}, "LlamaForCausalLM", ["model.embed_tokens.weight"], True),
    ],
)
def test_whether_the_head_is_the_embedding(
    config: dict[str, Any], architecture: str, tensors: list[str], tied: bool
) -> None:
    assert is_tied(config, architecture, tensors) is tied
