"""What is known of a model from its files alone, without loading a weight."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Family(StrEnum):
    """How text comes out: by continuing the prompt, or by a decoder that attends to an encoded prompt."""

    DECODER = "decoder"
    ENCODER_DECODER = "encoder_decoder"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """Facts read from `config.json`, the safetensors headers and the tokenizer files.

    `context_length` counts tokens (prompt and output together for a decoder); `None` where the architecture has no
    bound, as T5's relative positions. `kv_bytes_per_token` is for 16-bit keys and values of all decoder layers;
    `cross_kv_bytes_per_token` the same for an encoded prompt's tokens (0 for a decoder).
    """

    architecture: str  # as config.json spells it: "LlamaForCausalLM"
    model_type: str  # "llama"
    family: Family
    parameters: int
    weights_bytes: int
    dtype: str  # of the stored weights: "float32", "bfloat16", …
    context_length: int | None
    vocab_size: int
    layers: int
    kv_bytes_per_token: int
    cross_kv_bytes_per_token: int = 0
    chat_template: bool = False
    tokenizer: str = "tokenizer.json"
    licence: str | None = None
    eos_token_ids: tuple[int, ...] = ()
    decoder_start_token_id: int | None = None
    generation_defaults: dict[str, Any] = field(default_factory=dict[str, Any])
