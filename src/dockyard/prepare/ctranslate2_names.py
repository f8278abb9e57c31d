"""Names that Transformers 5 changed, given back before CTranslate2's loaders look for them."""

from types import SimpleNamespace
from typing import Any

import torch

# Each family has one value; configs of Transformers before 5 spelled it out.
_BART_LIKE = {
    "BartConfig": {"normalize_before": False, "normalize_embedding": True},
    "MBartConfig": {"normalize_before": True, "normalize_embedding": True},
    "PegasusConfig": {"normalize_before": True, "normalize_embedding": False},
}


def restore_names(model: Any) -> None:
    """Rotary parameters go: they were read before, and the loaders know only some of them."""
    config = model.config
    kind = type(config).__name__
    for name, value in _BART_LIKE.get(kind, {}).items():
        setattr(config, name, value)
    if kind == "T5Config":
        config.tie_word_embeddings = config.scale_decoder_outputs  # what the loader means by it
    elif kind == "MT5Config":
        config.tie_word_embeddings = False  # never scales
    elif kind == "GPTNeoXConfig":
        config.rotary_pct = config.rope_parameters["partial_rotary_factor"]
        model.embed_out = model.lm_head
    elif kind == "FalconConfig":
        _one_norm_as_two(model)
        config.multi_query = config.multi_query and not config.new_decoder_architecture
    elif kind == "Phi3Config":
        for layer in model.model.layers:
            layer.self_attn.rotary_emb = SimpleNamespace(long_factor=None, short_factor=None)
    elif kind == "OPTConfig":
        _unit_norms(model)
    if getattr(config, "rope_parameters", None) is not None:
        config.rope_parameters = None


def _one_norm_as_two(model: Any) -> None:
    """Falcon 2 has one norm for attention and MLP where Falcon 40B has two; CTranslate2 knows two, so it gets twins."""
    for layer in model.transformer.h:
        if model.config.new_decoder_architecture and not hasattr(layer, "ln_attn"):
            layer.ln_attn = layer.ln_mlp = layer.input_layernorm


def _unit_norms(model: Any) -> None:
    """Galactica's norms have no weights; those that change nothing stand in."""
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm) and module.weight is None:
            module.weight = torch.nn.Parameter(torch.ones(module.normalized_shape))
            module.bias = torch.nn.Parameter(torch.zeros(module.normalized_shape))
