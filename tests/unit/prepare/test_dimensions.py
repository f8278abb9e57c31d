"""Widths, heads and windows, out of the fields of many kinds of config.json."""

from typing import Any

import pytest
from tests.unit.prepare.model_folders import LLAMA

from dockyard.domain.card import Dimensions
from dockyard.prepare.dimensions import dimensions_of

BASE: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 4}


def of(config: dict[str, Any]) -> Dimensions:
    found = dimensions_of(config)
    assert found is not None
    return found


def test_a_llama() -> None:
    found = of({**LLAMA, "intermediate_size": 24})
    assert found == Dimensions(width=8, heads=4, kv_heads=2, head_width=2, inner=24)


def test_a_gpt2_names_all_otherwise_and_its_inner_width_not_at_all() -> None:
    found = of({"n_embd": 64, "n_head": 4, "n_inner": None})
    assert found == Dimensions(width=64, heads=4, kv_heads=4, head_width=16, inner=256)


def test_a_bart_has_those_of_its_decoder() -> None:
    found = of({"d_model": 64, "decoder_attention_heads": 8, "encoder_attention_heads": 4, "decoder_ffn_dim": 128})
    assert (found.heads, found.inner) == (8, 128)


def test_a_t5_has_heads_wider_than_the_model() -> None:
    assert of({"d_model": 64, "num_heads": 4, "d_kv": 32, "d_ff": 100}).head_width == 32


def test_a_falcon_has_one_head_of_keys_and_values_unless_it_is_of_the_new_kind() -> None:
    falcon = {**BASE, "multi_query": True, "num_kv_heads": 4}
    assert of(falcon).kv_heads == 1
    assert of({**falcon, "new_decoder_architecture": True}).kv_heads == 4


def test_a_config_without_widths_has_none() -> None:
    assert dimensions_of({"vocab_size": 3}) is None
    assert dimensions_of({**BASE, "hidden_size": "wide"}) is None


@pytest.mark.parametrize(
    ("config", "window", "layers"),
    [
        ({"model_type": "llama"}, None, 0),
        ({"model_type": "mistral"}, 4096, 6),
        ({"model_type": "mistral", "sliding_window": 128}, 128, 6),
        ({"model_type": "mistral", "sliding_window": None}, None, 0),
        ({"model_type": "gemma2"}, 4096, 3),
        ({"model_type": "gemma3_text", "sliding_window": 512}, 512, 5),
        ({"model_type": "cohere2", "sliding_window": 512, "sliding_window_pattern": 3}, 512, 4),
        ({"model_type": "qwen2", "sliding_window": 128, "max_window_layers": 4}, None, 0),
        ({"model_type": "qwen2", "sliding_window": 128, "max_window_layers": 4, "use_sliding_window": True}, 128, 2),
        ({"sliding_window": 128, "layer_types": ["sliding_attention", "full_attention"] * 3}, 128, 3),
        ({"model_type": "unheard-of", "sliding_window": 128}, 128, 0),  # nobody knows which layers
    ],
)
def test_windows(config: dict[str, Any], window: int | None, layers: int) -> None:
    found = of({**BASE, **config})
    assert (found.window, found.window_layers) == (window, layers)
