"""Attention as Transformers computes it, set on CTranslate2's specification: rotary frequencies, head width, scales.

Each function reads the loaded model at once, before a loader takes it apart, and returns what sets the specification.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from ctranslate2.specs import RotaryScalingType

from dockyard.errors import Failed, Reason

Finish = Callable[[Any], None]

_NEVER = 1 << 30  # tokens: equal lengths mean that attention is not scaled


def copy_rotary(model: Any) -> Finish:
    """Frequencies are handed over as Transformers computed them, whatever rule they follow (linear, Llama 3, YaRN …).

    CTranslate2 knows few rules, and only some of their parameters. But its LongRoPE divides each frequency by a factor
    of a table, so that any other rule is one, too: the same table for short texts and long ones.
    """
    module = _rotary_module(model)
    if module is None:
        return lambda spec: None
    parameters = model.config.rope_parameters
    if "rope_theta" in parameters:
        table = _table(model.config, parameters, module, "")
        return lambda spec: _set_all(spec, [table] * len(spec.decoder.layer))
    tables = {kind: _table(model.config, parameters[kind], module, f"{kind}_") for kind in parameters}
    return lambda spec: _set_all(spec, [tables[kind] for kind in model.config.layer_types])


def copy_attention(model: Any) -> Finish:
    """Head width and the queries' scale of each layer; no window.

    CTranslate2 applies a window only to what it generates, not within a prompt. So no text that is longer than the
    window is served (`ModelCard.plain_context`), and up to there a window changes nothing.
    """
    scales = [module.scaling for module in model.modules() if _is_self_attention(module)]
    width = _head_width(model.config) if hasattr(model.config, "hidden_size") else None

    def finish(spec: Any) -> None:
        layers = spec.decoder.layer
        vars(spec.decoder).pop("sliding_window", None)
        for attention in (layer.self_attention for layer in layers):
            vars(attention).pop("sliding_window", None)
            if (
                width
                and hasattr(attention, "rotary_dim")
                and width * spec.decoder.num_heads != model.config.hidden_size
            ):
                _put(attention, head_dim=np.int32(width))
        if width and len(scales) == len(layers) and any(not math.isclose(scale, width**-0.5) for scale in scales):
            for layer, scale in zip(layers, scales, strict=True):
                layer.self_attention.queries_scale = float(scale)

    return finish


def _is_self_attention(module: Any) -> bool:
    return type(getattr(module, "scaling", None)) is float and "Attention" in type(module).__name__


def _rotary_module(model: Any) -> Any:
    return next((part for name, part in model.named_modules() if name.endswith("rotary_emb")), None)


def _table(config: Any, parameters: dict[str, Any], module: Any, prefix: str) -> dict[str, Any]:
    """What one layer's attention has to have."""
    theta = float(parameters["rope_theta"])
    frequencies = getattr(module, f"{prefix}inv_freq").float().cpu().numpy().astype(np.float64)
    plain = theta ** -(np.arange(len(frequencies)) / len(frequencies))
    found: dict[str, Any] = {"rotary_base": np.float32(theta)}
    if 2 * len(frequencies) != _head_width(config):
        found["rotary_dim"] = np.int32(2 * len(frequencies))
    scaling = float(getattr(module, f"{prefix}attention_scaling", 1.0))
    if parameters.get("rope_type") == "longrope":
        return {**found, **_longrope(config, parameters, scaling)}
    if np.allclose(frequencies, plain, rtol=1e-5):
        return found
    if scaling != 1.0:  # YaRN: queries and keys both, so that their product has the square; only what rotates
        if "rotary_dim" in found:
            raise _cannot(f"it scales by {scaling:g} the part of each head that rotates, and not the rest")
        found["queries_scale"] = scaling**2 * _head_width(config) ** -0.5
    return {**found, **_factors(plain / frequencies, original=_NEVER, longest=_NEVER)}


def _head_width(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _longrope(config: Any, parameters: dict[str, Any], scaling: float) -> dict[str, Any]:
    """The short factors, and a scale that follows from both lengths.

    Transformers takes the long ones for a text past the original length. CTranslate2 takes them for every text once
    one has made its table of positions grow. So no text that is longer is served (`ModelCard.plain_context`).
    """
    original, longest = parameters["original_max_position_embeddings"], config.max_position_embeddings
    derived = math.sqrt(1 + math.log(longest / original) / math.log(original)) if longest > original else 1.0
    if not math.isclose(scaling, derived, rel_tol=1e-4):
        raise _cannot(f"its long positions are scaled by {scaling:g}, not by {derived:g} as its lengths imply")
    return _factors(parameters["short_factor"], original=original, longest=longest)


def _factors(factors: Any, *, original: int, longest: int) -> dict[str, Any]:
    table = np.asarray(factors, dtype=np.float32)
    return {
        "rotary_scaling_type": np.int8(RotaryScalingType.Su),
        "rotary_scaling_short_factor": table,
        "rotary_scaling_long_factor": table,
        "original_max_position_embeddings": np.int32(original),
        "max_position_embeddings": np.int32(longest),
    }


def _set_all(spec: Any, tables: list[dict[str, Any]]) -> None:
    for layer, table in zip(spec.decoder.layer, tables, strict=True):
        if hasattr(layer.self_attention, "rotary_dim"):  # Falcon has the module, too, where it uses ALiBi
            _put(layer.self_attention, **table)


def _put(attention: Any, **values: Any) -> None:
    """A specification takes no attribute that its constructor was not told of; the library reads those that are there,
    whoever set them.
    """
    vars(attention).update(values)


def _cannot(why: str) -> Failed:
    return Failed(
        f"CTranslate2 cannot compute the model as it was trained: {why}; deploy it without optimizationType",
        reason=Reason.CONVERSION_FAILED,
    )
