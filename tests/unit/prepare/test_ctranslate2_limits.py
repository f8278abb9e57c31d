"""What `config.json` tells about a model that CTranslate2 cannot compute, or not all of."""

from typing import Any

import pytest

from dockyard.prepare.ctranslate2_limits import plain_context, why_not

LONGROPE = {"rope_type": "longrope", "original_max_position_embeddings": 4096}


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"model_type": "llama", "attention_bias": True}, None),
        ({"model_type": "gemma", "attention_bias": True}, "config.json has attention_bias = True"),
        ({"model_type": "gemma", "attention_bias": False}, None),
        ({"model_type": "gpt_neox", "attention_bias": False}, "config.json has attention_bias = False"),
        ({"model_type": "bloom", "apply_residual_connection_post_layernorm": True}, "post_layernorm = True"),
        ({"model_type": "gpt_bigcode", "multi_query": False}, "multi_query = False"),
        ({"model_type": "llama", "quantization_config": {"quant_method": "awq"}}, "quantized already"),
    ],
)
def test_what_would_be_left_out_in_silence_is_named(config: dict[str, Any], why: str | None) -> None:
    told = why_not(config)
    assert (told is None) if why is None else why in (told or "")


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"model_type": "llama"}, None),
        ({"model_type": "mistral", "sliding_window": None}, None),
        ({"model_type": "mistral", "sliding_window": 4096}, 4096),
        ({"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": False}, None),
        ({"model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": True}, 4096),
        ({"model_type": "gemma3_text", "sliding_window": 512, "layer_types": ["sliding_attention"]}, 512),
        ({"model_type": "gemma3_text", "sliding_window": 512, "layer_types": ["full_attention"]}, None),
        ({"model_type": "phi3", "rope_scaling": LONGROPE, "sliding_window": 262144}, 4096),
        ({"rope_scaling": {"type": "su"}, "original_max_position_embeddings": 2048}, 2048),
        ({"rope_parameters": {"rope_type": "yarn", "original_max_position_embeddings": 4096}}, None),
        ({"sliding_window": "wide", "rope_scaling": "longrope"}, None),
    ],
)
def test_the_length_up_to_which_nothing_changes(config: dict[str, Any], length: int | None) -> None:
    assert plain_context(config) == length
