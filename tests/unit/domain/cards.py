"""Cards of models that exist, for what is computed from them."""

from dataclasses import replace

from dockyard.domain.card import Dimensions, Family, ModelCard

SMALL = ModelCard(  # SmolLM2-135M
    architecture="LlamaForCausalLM",
    model_type="llama",
    family=Family.DECODER,
    parameters=134_515_008,
    weights_bytes=269_030_016,
    dtype="float16",
    context_length=8192,
    vocab_size=49152,
    layers=30,
    kv_bytes_per_token=2 * 2 * 30 * 3 * 64,
    dimensions=Dimensions(width=576, heads=9, kv_heads=3, head_width=64, inner=1536),
)
LARGE = replace(  # Llama 3.1 8B
    SMALL,
    parameters=8_030_000_000,
    weights_bytes=16_060_000_000,
    dtype="bfloat16",
    context_length=131_072,
    vocab_size=128_256,
    layers=32,
    kv_bytes_per_token=2 * 2 * 32 * 8 * 128,
    dimensions=Dimensions(width=4096, heads=32, kv_heads=8, head_width=128, inner=14336),
)
HUGE = replace(LARGE, parameters=700_000_000_000, weights_bytes=1_400_000_000_000)
MISTRAL = replace(  # 7B v0.1: every layer sees 4096 tokens back
    LARGE,
    architecture="MistralForCausalLM",
    model_type="mistral",
    parameters=7_241_732_096,
    context_length=32_768,
    vocab_size=32_000,
    dimensions=Dimensions(width=4096, heads=32, kv_heads=8, head_width=128, inner=14336, window=4096, window_layers=32),
)
FALCON = replace(  # 7B: one head of keys and values for 71
    LARGE,
    architecture="FalconForCausalLM",
    model_type="falcon",
    context_length=2048,
    kv_bytes_per_token=2 * 2 * 32 * 64,
    dimensions=Dimensions(width=4544, heads=71, kv_heads=1, head_width=64, inner=18176),
)
T5 = ModelCard(  # t5-base
    architecture="T5ForConditionalGeneration",
    model_type="t5",
    family=Family.ENCODER_DECODER,
    parameters=222_903_552,
    weights_bytes=891_614_208,
    dtype="float32",
    context_length=None,
    vocab_size=32_128,
    layers=12,
    kv_bytes_per_token=2 * 2 * 12 * 12 * 64,
    cross_kv_bytes_per_token=2 * 2 * 12 * 12 * 64,
    dimensions=Dimensions(width=768, heads=12, kv_heads=12, head_width=64, inner=3072),
)
