"""Tiny configs: one of each architecture in the matrix, and the variations that their real checkpoints have.

Numbers differ from the classes' defaults wherever an engine could take a default for granted.
"""

from typing import Any

VOCABULARY = 2048
_SMALL = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
_GPT = {**_SMALL, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "layer_norm_epsilon": 1e-2}
_ROPE = {"rope_theta": 500.0, "rope_type": "default"}
_LLAMA = {
    **_SMALL,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-2,
    "rope_parameters": _ROPE,
}
_PARTIAL = {**_LLAMA, "layer_norm_eps": 1e-2, "rope_parameters": {**_ROPE, "partial_rotary_factor": 0.5}}
_EXPERTS = {**_LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2}
_QWEN_EXPERTS = {
    **_LLAMA,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}
_HEAD = {**_LLAMA, "head_dim": 16}
_OPT = {**_LLAMA, "ffn_dim": 64, "word_embed_proj_dim": 32}
_BLOOM = {**_SMALL, "hidden_size": 32, "n_layer": 2, "n_head": 4, "seq_length": 64, "layer_norm_epsilon": 1e-2}
_FALCON = {**_LLAMA, "new_decoder_architecture": False, "layer_norm_epsilon": 1e-2}
_GEMMA3 = {
    **_HEAD,
    "query_pre_attn_scalar": 9,
    "sliding_window": 56,
    "layer_types": ["sliding_attention", "full_attention"],
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5000.0},
    },
}
_T5 = {
    **_SMALL,
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 64,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "layer_norm_epsilon": 1e-2,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "decoder_start_token_id": 0,
}
_BART = {
    **_SMALL,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 64,
    "scale_embedding": True,
    "decoder_start_token_id": 2,
    "forced_bos_token_id": 5,
    "forced_eos_token_id": None,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "ArceeForCausalLM": _LLAMA,
    "BartForConditionalGeneration": _BART,
    "BloomForCausalLM": _BLOOM,
    "CodeGenForCausalLM": {**_GPT, "rotary_dim": 4},
    "Cohere2ForCausalLM": _LLAMA,
    "CohereForCausalLM": _LLAMA,
    "Exaone4ForCausalLM": {**_LLAMA, "sliding_window": 16, "sliding_window_pattern": 2},
    "FalconForCausalLM": _FALCON,
    "GPT2LMHeadModel": _GPT,
    "GPTBigCodeForCausalLM": _GPT,
    "GPTJForCausalLM": {**_GPT, "rotary_dim": 4},
    "GPTNeoForCausalLM": {
        **_SMALL,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 2,
        "max_position_embeddings": 64,
        "window_size": 16,
        "attention_types": [[["global", "local"], 1]],
    },
    "GPTNeoXForCausalLM": _PARTIAL,
    "Gemma2ForCausalLM": _HEAD,
    "Gemma3ForCausalLM": _GEMMA3,
    "GemmaForCausalLM": _HEAD,
    "Glm4ForCausalLM": _HEAD,
    "GlmForCausalLM": _HEAD,
    "GraniteForCausalLM": _LLAMA,
    "GraniteMoeForCausalLM": _EXPERTS,
    "LlamaForCausalLM": _LLAMA,
    "M2M100ForConditionalGeneration": {**_BART, "pad_token_id": 1},
    "MBartForConditionalGeneration": _BART,
    "MT5ForConditionalGeneration": _T5,
    "MarianMTModel": {
        **_BART,
        "activation_function": "swish",
        "decoder_start_token_id": VOCABULARY - 1,
        "pad_token_id": VOCABULARY - 1,
        "forced_bos_token_id": None,
    },
    "MistralForCausalLM": {**_HEAD, "sliding_window": None},
    "MixtralForCausalLM": {**_EXPERTS, "sliding_window": 16},
    "MptForCausalLM": {**_SMALL, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64},
    "OPTForCausalLM": _OPT,
    "Olmo2ForCausalLM": _LLAMA,
    "Olmo3ForCausalLM": {**_LLAMA, "sliding_window": 16},
    "OlmoForCausalLM": _LLAMA,
    "OlmoeForCausalLM": _QWEN_EXPERTS,
    "PegasusForConditionalGeneration": {**_BART, "decoder_start_token_id": 0, "forced_bos_token_id": None},
    "Phi3ForCausalLM": {**_LLAMA, "sliding_window": 56},
    "PhiForCausalLM": _PARTIAL,
    "Qwen2ForCausalLM": _LLAMA,
    "Qwen2MoeForCausalLM": _QWEN_EXPERTS,
    "Qwen3ForCausalLM": _HEAD,
    "Qwen3MoeForCausalLM": {**_QWEN_EXPERTS, "head_dim": 16},
    "SmolLM3ForCausalLM": _LLAMA,
    "StableLmForCausalLM": _PARTIAL,
    "Starcoder2ForCausalLM": {**_LLAMA, "sliding_window": 16},
    "T5ForConditionalGeneration": _T5,
    "UMT5ForConditionalGeneration": _T5,
}


def _rope(kind: str, **parameters: Any) -> dict[str, Any]:
    return {"rope_parameters": {**_ROPE, "rope_type": kind, **parameters}}


_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
_LONGROPE = {
    "long_factor": [1.0, 2.0, 3.0, 4.0],
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "original_max_position_embeddings": 64,
}

# Name → architecture and config. On both engines; one config.json of real models each.
VARIATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, linear": ("LlamaForCausalLM", {**_LLAMA, **_rope("linear", factor=4.0)}),
    "llama 3.1": ("LlamaForCausalLM", {**_LLAMA, **_rope("llama3", factor=8.0, **_LLAMA3)}),
    "llama 3.2": ("LlamaForCausalLM", {**_LLAMA, **_rope("llama3", factor=32.0, **_LLAMA3)}),
    "llama, yarn": ("LlamaForCausalLM", {**_LLAMA, **_rope("yarn", factor=4.0, original_max_position_embeddings=16)}),
    "llama, wide heads and biases": ("LlamaForCausalLM", {**_HEAD, "attention_bias": True, "mlp_bias": True}),
    "llama, tied": ("LlamaForCausalLM", {**_LLAMA, "tie_word_embeddings": True}),
    "llama, unnamed rows": ("LlamaForCausalLM", {**_LLAMA, "vocab_size": VOCABULARY + 40}),
    "mistral, window": ("MistralForCausalLM", {**_LLAMA, "sliding_window": 48}),
    "qwen 2, window": (
        "Qwen2ForCausalLM",
        {**_LLAMA, "use_sliding_window": True, "sliding_window": 48, "max_window_layers": 1},
    ),
    "phi 3, longrope": (
        "Phi3ForCausalLM",
        {**_LLAMA, **_rope("longrope", **_LONGROPE), "max_position_embeddings": 256},
    ),
    "phi 4 mini": (
        "Phi3ForCausalLM",
        {**_LLAMA, "rope_parameters": {**_ROPE, "partial_rotary_factor": 0.5}, "tie_word_embeddings": True},
    ),
    "phi, one head of keys each": ("PhiForCausalLM", {**_PARTIAL, "num_key_value_heads": 4}),
    "pythia, serial": ("GPTNeoXForCausalLM", {**_PARTIAL, "use_parallel_residual": False}),
    "falcon 40b": ("FalconForCausalLM", {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon 2": (
        "FalconForCausalLM",
        {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1},
    ),
    "falcon rw": (
        "FalconForCausalLM",
        {**_FALCON, "alibi": True, "multi_query": False, "parallel_attn": False, "bias": True},
    ),
    "gpt-2, scaled by layer": ("GPT2LMHeadModel", {**_GPT, "scale_attn_by_inverse_layer_idx": True}),
    "gpt-2, relu": ("GPT2LMHeadModel", {**_GPT, "activation_function": "relu"}),
    "bloom, heads that are no power of two": ("BloomForCausalLM", {**_BLOOM, "hidden_size": 48, "n_head": 6}),
    "opt 350m": ("OPTForCausalLM", {**_OPT, "word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "galactica": ("OPTForCausalLM", {**_OPT, "enable_bias": False, "layer_norm_elementwise_affine": False}),
    "t5, first version": (
        "T5ForConditionalGeneration",
        {**_T5, "feed_forward_proj": "relu", "tie_word_embeddings": True},
    ),
    "bart, distilled": (
        "BartForConditionalGeneration",
        {**_BART, "decoder_layers": 1, "decoder_attention_heads": 2, "scale_embedding": False},
    ),
}
