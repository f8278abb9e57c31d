"""What is known of a model from its files alone, without loading a weight."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from dockyard.domain.adapter import AdapterCard


class Family(StrEnum):
    """How text comes out: by continuing the prompt, or by a decoder that attends to an encoded prompt."""

    DECODER = "decoder"
    ENCODER_DECODER = "encoder_decoder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimensions:
    """Widths of the decoder in elements. `window_layers` layers see `window` tokens back, the others see all."""

    width: int
    heads: int
    kv_heads: int
    head_width: int
    inner: int  # of the feed-forward layers
    window: int | None = None
    window_layers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """Facts read from `config.json`, the safetensors headers and the tokenizer files.

    `context_length` counts tokens (prompt and output together for a decoder); `None` where the architecture has no
    bound, as T5's relative positions. `kv_bytes_per_token` is for 16-bit keys and values of all decoder layers;
    `cross_kv_bytes_per_token` the same for an encoded prompt's tokens (0 for a decoder). `parameters` counts tied
    weights once; `active_parameters` are those that a token passes, where experts share the work.
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
    tokenizer_kind: str | None = None  # "BPE", "Unigram", "WordPiece" …, as tokenizer.json says
    tokenizer_size: int | None = None  # its entries, the added ones included
    licence: str | None = None
    eos_token_ids: tuple[int, ...] = ()
    decoder_start_token_id: int | None = None
    forced_bos_token_id: int | None = None  # what the decoder's output begins with before it chooses: a language
    # Tokens up to which CTranslate2 computes what Transformers does: a sliding window, or the length past which the
    # rotary frequencies change. None: there is no such length.
    plain_context: int | None = None
    ctranslate2_cannot: str | None = None  # why, where only this model of a known architecture is beyond it
    generation_defaults: dict[str, Any] = field(default_factory=dict[str, Any])
    active_parameters: int | None = None  # None: all of them
    dimensions: Dimensions | None = None  # None: the config does not say, or the card is from an earlier release
    adapter: AdapterCard | None = None  # None: whole weights; else all above is that of base and adapter together
    deploy_config: dict[str, Any] | None = None  # the deployconfig.json that came with the files, if any
