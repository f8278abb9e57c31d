"""A GGUF file becomes the folder that it was made from: the same weights in the same order, the same ids for a text."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from safetensors import safe_open
from tests.unit.prepare.tiny_gguf import HEAD_WIDTH, TEXT, WIDTH, TinyGguf
from tokenizers import Tokenizer

from dockyard.errors import Failed, Reason
from dockyard.prepare.artifacts import Artifacts
from dockyard.prepare.gguf_weights import llama3_factors
from dockyard.prepare.import_task import run_import
from dockyard.prepare.reporting import Reporter
from dockyard.protocols.preparation import ImportTask, Outcome, PathSource


def _import(path: Path) -> tuple[Outcome, Path]:
    scratch = path.parent / "scratch"
    scratch.mkdir()
    artifacts = path.parent / "artifacts"
    task = ImportTask(source=PathSource(path=str(path)), artifacts_dir=str(artifacts), scratch_dir=str(scratch))
    outcome = run_import(task, Reporter(io.BytesIO()))
    return outcome, Artifacts(artifacts).folder(outcome.key)


def _refusal(tiny: TinyGguf, path: Path) -> Failed:
    tiny.write(path)
    with pytest.raises(Failed) as caught:
        _import(path)
    return caught.value


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_bytes())


@pytest.mark.parametrize(
    ("kind", "dtype", "tolerance"),
    [
        (GGMLQuantizationType.F32, "float32", 0.0),
        (GGMLQuantizationType.F16, "float16", 0.002),
        (GGMLQuantizationType.Q8_0, "float16", 0.03),
    ],
)
def test_weights_are_those_of_the_source(
    tmp_path: Path, kind: GGMLQuantizationType, dtype: str, tolerance: float
) -> None:
    weights = TinyGguf(matrices=kind).write(tmp_path / "m.gguf")
    outcome, folder = _import(tmp_path / "m.gguf")
    assert outcome.card
    assert outcome.card["dtype"] == dtype
    assert outcome.card["parameters"] == sum(values.size for values in weights.values())
    with safe_open(folder / "model.safetensors", framework="numpy") as stored:
        assert set(stored.keys()) == weights.keys()
        for name, values in weights.items():
            found = stored.get_tensor(name)
            assert str(found.dtype) == dtype
            np.testing.assert_allclose(found, values, rtol=0.001 if tolerance else 0, atol=tolerance, err_msg=name)


def test_bfloat16_stays_bfloat16(tmp_path: Path) -> None:
    TinyGguf(matrices=GGMLQuantizationType.BF16).write(tmp_path / "m.gguf")
    outcome, _ = _import(tmp_path / "m.gguf")
    assert outcome.card
    assert outcome.card["dtype"] == "bfloat16"


def test_the_tokenizer_gives_the_ids_of_the_source(tmp_path: Path) -> None:
    tiny = TinyGguf()
    tiny.write(tmp_path / "m.gguf")
    _, folder = _import(tmp_path / "m.gguf")
    found = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in (TEXT, "555-1234", "<|im_start|>user\n12 + 30<|im_end|>", " 7 ", "naïve — 日本 🙂"):
        assert found.encode(text).ids == tiny.tokenizer.encode(text).ids
        assert found.decode(found.encode(text).ids) == tiny.tokenizer.decode(tiny.tokenizer.encode(text).ids)


def test_the_config_is_what_transformers_reads(tmp_path: Path) -> None:
    TinyGguf(numbers={"tokenizer.ggml.eot_token_id": 0}).write(tmp_path / "m.gguf")
    outcome, folder = _import(tmp_path / "m.gguf")
    config = _json(folder / "config.json")
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (config["rope_theta"], config["rms_norm_eps"]) == (100000.0, 1e-5)  # not 9.999999747378752e-06
    assert (config["tie_word_embeddings"], config["head_dim"], config["rope_scaling"]) == (True, HEAD_WIDTH, None)
    assert _json(folder / "generation_config.json")["eos_token_id"] == [2, 0]
    assert _json(folder / "tokenizer_config.json")["eos_token"] == "<|im_end|>"
    assert outcome.card
    assert (outcome.card["licence"], outcome.card["chat_template"]) == ("mit", True)
    assert (outcome.card["context_length"], list(outcome.card["eos_token_ids"])) == (128, [2, 0])


def test_an_output_matrix_of_its_own_is_kept(tmp_path: Path) -> None:
    tiny = TinyGguf()
    head = np.ones((tiny.tokenizer.get_vocab_size(), WIDTH), dtype=np.float32)
    tiny.extra["output.weight"] = head
    tiny.write(tmp_path / "m.gguf")
    _, folder = _import(tmp_path / "m.gguf")
    assert not _json(folder / "config.json")["tie_word_embeddings"]
    with safe_open(folder / "model.safetensors", framework="numpy") as stored:
        np.testing.assert_array_equal(stored.get_tensor("lm_head.weight"), head)


def test_the_scaling_of_llama_3_1_is_recognized(tmp_path: Path) -> None:
    scaling = {
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    factors = llama3_factors(scaling, 100000.0, HEAD_WIDTH).astype(np.float32)
    TinyGguf(extra={"rope_freqs.weight": factors}).write(tmp_path / "m.gguf")
    _, folder = _import(tmp_path / "m.gguf")
    assert _json(folder / "config.json")["rope_scaling"] == {"rope_type": "llama3", **scaling}


def test_other_rotary_factors_are_refused(tmp_path: Path) -> None:
    factors = np.linspace(1, 9, HEAD_WIDTH // 2, dtype=np.float32)
    refusal = _refusal(TinyGguf(extra={"rope_freqs.weight": factors}), tmp_path / "m.gguf")
    assert refusal.reason is Reason.CONVERSION_FAILED


@pytest.mark.parametrize(
    ("tiny", "reason", "words"),
    [
        (TinyGguf(architecture="gemma2"), Reason.GGUF_ARCHITECTURE_NOT_SUPPORTED, "llama, qwen2, qwen3, gemma, phi3"),
        (TinyGguf(numbers={"llama.expert_count": 8}), Reason.GGUF_ARCHITECTURE_NOT_SUPPORTED, "experts"),
        (TinyGguf(pre="default"), Reason.TOKENIZER_MISSING, "smollm"),
        (TinyGguf(numbers={"split.count": 2}), Reason.WEIGHTS_MISSING, "merge"),
        (TinyGguf(drop="blk.1.attn_k.weight"), Reason.WEIGHTS_UNREADABLE, "blk.1.attn_k.weight"),
        (
            TinyGguf(extra={"blk.0.attn_q.bias": np.ones(WIDTH, dtype=np.float32)}),
            Reason.CONVERSION_FAILED,
            "attn_q.bias",
        ),
        (TinyGguf(extra={"blk.0.ssm.weight": np.ones(4, dtype=np.float32)}), Reason.CONVERSION_FAILED, "ssm"),
    ],
    ids=["architecture", "experts", "pre-tokenizer", "split", "absent", "bias", "unknown"],
)
def test_what_cannot_be_done_right_is_refused(tmp_path: Path, tiny: TinyGguf, reason: Reason, words: str) -> None:
    refusal = _refusal(tiny, tmp_path / "m.gguf")
    assert refusal.reason is reason
    assert words in refusal.message


@pytest.mark.parametrize("share", [0.001, 0.02, 0.3, 0.9, 0.999])
def test_a_file_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "m.gguf"
    TinyGguf().write(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(Failed) as caught:
        _import(path)
    assert caught.value.reason is Reason.WEIGHTS_UNREADABLE


def test_an_array_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    TinyGguf().write(path)
    content = bytearray(path.read_bytes())
    at = content.index(b"tokenizer.ggml.tokens") + len(b"tokenizer.ggml.tokens") + 8  # type of value, type of entry
    content[at : at + 8] = (1 << 60).to_bytes(8, "little")
    path.write_bytes(content)
    with pytest.raises(Failed, match="claims") as caught:
        _import(path)
    assert caught.value.reason is Reason.WEIGHTS_UNREADABLE


def test_a_file_that_is_no_gguf_is_not_supported(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"PK\x03\x04")
    with pytest.raises(Failed) as caught:
        _import(tmp_path / "m.gguf")
    assert caught.value.reason is Reason.SOURCE_NOT_SUPPORTED
