"""What CTranslate2 cannot compute of a model whose architecture it runs, told from `config.json` alone.

A deploy is refused by it before anything starts, and the conversion asks again.
"""

from collections.abc import Mapping
from typing import Any

# A field of the model type's config with the values that CTranslate2 computes; another would be left out in silence.
_TAKEN_FOR_GRANTED: dict[tuple[str, str], tuple[Any, ...]] = {
    ("bloom", "apply_residual_connection_post_layernorm"): (False,),
    ("gpt2", "scale_attn_weights"): (True,),
    ("gpt_bigcode", "multi_query"): (True,),
    ("gpt_neox", "attention_bias"): (True,),
    ("gemma", "attention_bias"): (False,),
    ("gemma3_text", "use_bidirectional_attention"): (False,),
    ("gemma3_text", "attn_logit_softcapping"): (),
    ("m2m_100", "pad_token_id"): (1,),  # where its positions begin
    ("phi", "qk_layernorm"): (False,),
}
# A window that is there and not used: only these model types say so.
_WINDOW_IS_A_CHOICE = ("qwen2", "qwen3")


def why_not(config: Mapping[str, Any]) -> str | None:
    """Why CTranslate2 cannot run it; None where it can, or where its architecture settles the matter."""
    for (kind, name), values in _TAKEN_FOR_GRANTED.items():
        value = config.get(name)
        if config.get("model_type") == kind and value is not None and value not in values:
            return f"config.json has {name} = {str(value)[:50]}"
    if config.get("quantization_config"):
        return "its weights are quantized already"
    return None


def plain_context(config: Mapping[str, Any]) -> int | None:
    """Up to how many tokens neither a sliding window nor LongRoPE's second set of frequencies matters; None: always.

    CTranslate2 applies a window to what it generates only, not within a prompt; and once a long text has made its table
    of positions grow, it takes the long frequencies for every text.
    """
    found = [length for length in (_window(config), _original_length(config)) if length is not None]
    return min(found, default=None)


def _window(config: Mapping[str, Any]) -> int | None:
    window = config.get("sliding_window")
    if type(window) is not int or window <= 0:
        return None
    if config.get("model_type") in _WINDOW_IS_A_CHOICE and not config.get("use_sliding_window"):
        return None
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and "sliding_attention" not in kinds:
        return None
    return window


def _original_length(config: Mapping[str, Any]) -> int | None:
    for name in ("rope_parameters", "rope_scaling"):
        rope = config.get(name)
        if not isinstance(rope, Mapping):
            continue
        if (rope.get("rope_type") or rope.get("type")) in ("longrope", "su"):
            length = rope.get("original_max_position_embeddings", config.get("original_max_position_embeddings"))
            return length if type(length) is int and length > 0 else None
    return None
