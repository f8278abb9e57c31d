"""The numbers of an architecture that decide about memory, read from the fields of any known `config.json`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dockyard.domain.card import Family
from dockyard.domain.compatibility import Architecture
from dockyard.errors import Failed, Reason

# One idea, the names that the configs have for it; the first that is there counts.
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads")
_WIDTH = ("hidden_size", "n_embd", "n_embed", "d_model")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads")
_CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "seq_length", "max_seq_len")

_UNBOUNDED = ("BloomForCausalLM",)  # ALiBi: no table of positions that ends
_DEFAULT_CONTEXT = {"FalconForCausalLM": 2048}  # its first configs do not say; the default of its class
_LARGEST = 1 << 31
_BYTES_OF_K_AND_V = 2 * 2  # two tensors, two bytes an element


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Layers are the decoder's. Bytes are for 16-bit keys and values of all layers, per token."""

    layers: int
    context_length: int | None
    vocab_size: int
    kv_bytes_per_token: int
    cross_kv_bytes_per_token: int = 0


def shape_of(config: Mapping[str, Any], architecture: Architecture) -> Shape:
    """Raises `Failed` (CONFIG_UNREADABLE) when a field that is needed is absent or no sound number."""
    if architecture.family is Family.ENCODER_DECODER:
        return _encoder_decoder(config)
    layers = _number(config, *_LAYERS)
    return Shape(
        layers=layers,
        context_length=_context(config, architecture.name),
        vocab_size=_number(config, "vocab_size"),
        kv_bytes_per_token=_BYTES_OF_K_AND_V * layers * _kv_heads(config) * _head_width(config),
    )


def _encoder_decoder(config: Mapping[str, Any]) -> Shape:
    """Each decoder layer keeps the prompt's keys and values, too. T5's relative positions have no bound; BART and its
    kin have a table of positions, for the prompt and for the output alike.
    """
    layers = _number(config, "num_decoder_layers", "decoder_layers", "num_layers")
    if config.get("d_kv") is not None:  # T5 and its kin
        width, context = _number(config, "num_heads") * _number(config, "d_kv"), None
    else:
        width, context = _number(config, "d_model"), _number(config, *_CONTEXT)
    per_token = _BYTES_OF_K_AND_V * layers * width
    return Shape(
        layers=layers,
        context_length=context,
        vocab_size=_number(config, "vocab_size"),
        kv_bytes_per_token=per_token,
        cross_kv_bytes_per_token=per_token,
    )


def _kv_heads(config: Mapping[str, Any]) -> int:
    if config.get("multi_query") and not config.get("new_decoder_architecture"):
        return 1  # Falcon, StarCoder: one head of keys and values for all, whatever num_kv_heads says
    return _find_number(config, *_KV_HEADS) or _number(config, *_HEADS)


def _head_width(config: Mapping[str, Any]) -> int:
    return _find_number(config, "head_dim") or max(1, _number(config, *_WIDTH) // _number(config, *_HEADS))


def _context(config: Mapping[str, Any], architecture: str) -> int | None:
    found = _find_number(config, *_CONTEXT) or _DEFAULT_CONTEXT.get(architecture)
    if found is None and architecture not in _UNBOUNDED:
        return _number(config, *_CONTEXT)  # raises
    return found


def _number(config: Mapping[str, Any], *names: str) -> int:
    found = _find_number(config, *names)
    if found is None:
        raise Failed(f"config.json lacks {' or '.join(names)}; fetch the file again", reason=Reason.CONFIG_UNREADABLE)
    return found


def _find_number(config: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = config.get(name)
        if value is None:
            continue
        if type(value) is not int or not 0 < value < _LARGEST:
            raise Failed(
                f"{name} in config.json must be a positive whole number, got {str(value)[:50]}",
                reason=Reason.CONFIG_UNREADABLE,
            )
        return value
    return None
