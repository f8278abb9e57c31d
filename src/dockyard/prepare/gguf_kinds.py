"""The GGUF architectures whose tensors map one to one, and what llama.cpp's converter did to them on the way. Data."""

from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufKind:
    """`in_layer`: a layer's tensors, theirs → ours. `constants`: fields of config.json that the metadata does not hold.

    `interleaved`: the rows of queries and keys lie in another order. `norms_plus_one`: what was added to the norms.
    """

    architecture: str
    model_type: str
    in_layer: dict[str, str]
    interleaved: bool = False
    norms_plus_one: bool = False
    constants: dict[str, Any] = field(default_factory=dict[str, Any])


OUTSIDE: Final = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_NORMS = {"attn_norm.weight": "input_layernorm.weight", "ffn_norm.weight": "post_attention_layernorm.weight"}
_OUT = {"attn_output.weight": "self_attn.o_proj.weight", "ffn_down.weight": "mlp.down_proj.weight"}
_LLAMA = {
    **_NORMS,
    **_OUT,
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
}
_SILU = {"hidden_act": "silu"}

KINDS: Final[dict[str, GgufKind]] = {
    "llama": GgufKind(  # Mistral, too
        architecture="LlamaForCausalLM",
        model_type="llama",
        in_layer=_LLAMA,
        interleaved=True,
        constants={**_SILU, "attention_bias": False, "mlp_bias": False},
    ),
    "qwen2": GgufKind(
        architecture="Qwen2ForCausalLM",
        model_type="qwen2",
        in_layer={
            **_LLAMA,
            "attn_q.bias": "self_attn.q_proj.bias",
            "attn_k.bias": "self_attn.k_proj.bias",
            "attn_v.bias": "self_attn.v_proj.bias",
        },
        constants={**_SILU, "use_sliding_window": False},
    ),
    "qwen3": GgufKind(
        architecture="Qwen3ForCausalLM",
        model_type="qwen3",
        in_layer={
            **_LLAMA,
            "attn_q_norm.weight": "self_attn.q_norm.weight",
            "attn_k_norm.weight": "self_attn.k_norm.weight",
        },
        constants={**_SILU, "use_sliding_window": False, "attention_bias": False},
    ),
    "gemma": GgufKind(
        architecture="GemmaForCausalLM",
        model_type="gemma",
        in_layer=_LLAMA,
        norms_plus_one=True,
        constants={
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_activation": "gelu_pytorch_tanh",
            "attention_bias": False,
        },
    ),
    "phi3": GgufKind(
        architecture="Phi3ForCausalLM",
        model_type="phi3",
        in_layer={
            **_NORMS,
            **_OUT,
            "attn_qkv.weight": "self_attn.qkv_proj.weight",
            "ffn_up.weight": "mlp.gate_up_proj.weight",
        },
        constants={**_SILU, "pad_token_id": None},
    ),
}
