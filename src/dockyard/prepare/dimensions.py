"""The widths of an architecture that decide about its activations and about how an engine lays out its cache."""

from collections.abc import Iterable, Mapping
from typing import Any

from dockyard.domain.card import Dimensions

# One idea, the names that the configs have for it; the first that is there counts.
_WIDTH = ("hidden_size", "n_embd", "n_embed", "d_model")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads")
_HEAD_WIDTH = ("head_dim", "d_kv")
_INNER = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "decoder_ffn_dim", "d_ff")
_USUAL_INNER = 4  # times the width, where a config does not say

# The window of a class whose config.json need not say it, as Transformers sets it; `sliding_window: null` is none.
_DEFAULT_WINDOW = {"mistral": 4096, "gemma2": 4096}
_IF_ASKED = ("qwen2", "qwen3")  # have a window only where use_sliding_window is true
_ALL_LAYERS = ("mistral", "mixtral", "phi3", "starcoder2")
_EVERY_NTH_IS_FULL = {"gemma2": 2, "cohere2": 4, "gemma3_text": 6}


def dimensions_of(config: Mapping[str, Any]) -> Dimensions | None:
    """None where the config lacks what others always have."""
    width, heads = _number(config, _WIDTH), _number(config, _HEADS)
    if not width or not heads:
        return None
    window = _window(config)
    return Dimensions(
        width=width,
        heads=heads,
        kv_heads=_kv_heads(config, heads),
        head_width=_number(config, _HEAD_WIDTH) or max(1, width // heads),
        inner=_number(config, _INNER) or _USUAL_INNER * width,
        window=window,
        window_layers=_window_layers(config) if window else 0,
    )


def _kv_heads(config: Mapping[str, Any], heads: int) -> int:
    if config.get("multi_query") and not config.get("new_decoder_architecture"):
        return 1  # Falcon: one head of keys and values for all, whatever num_kv_heads says
    return _number(config, _KV_HEADS) or heads


def _window(config: Mapping[str, Any]) -> int | None:
    kind = config.get("model_type")
    if kind in _IF_ASKED and config.get("use_sliding_window") is not True:
        return None
    found = config.get("sliding_window", _DEFAULT_WINDOW.get(str(kind)))
    return found if type(found) is int and found > 0 else None


def _window_layers(config: Mapping[str, Any]) -> int:
    """How many layers see no further back than the window."""
    layers = _number(config, ("num_hidden_layers",)) or 0
    kinds = config.get("layer_types")
    if isinstance(kinds, list):
        return sum(kind == "sliding_attention" for kind in kinds[:layers])
    kind = config.get("model_type")
    if kind in _IF_ASKED:
        return max(0, layers - (_number(config, ("max_window_layers",)) or 28))
    period = _number(config, ("sliding_window_pattern",)) or _EVERY_NTH_IS_FULL.get(str(kind))
    if period:
        return layers - layers // period
    return layers if kind in _ALL_LAYERS else 0


def _number(config: Mapping[str, Any], names: Iterable[str]) -> int | None:
    """Whether it is a sound one was asked before (`shape_of`); one that only decides about an estimate may be odd."""
    found = (config.get(name) for name in names)
    return next((value for value in found if type(value) is int and 0 < value < 1 << 31), None)
