"""Which engine runs which architecture at which quantization, and in which precision on which device. Data first."""

from dataclasses import dataclass, replace
from typing import Final

from dockyard.domain.card import Family, ModelCard
from dockyard.domain.spec import EngineName, Quantization
from dockyard.errors import Invalid, Reason

_T = EngineName.TRANSFORMERS
_C = EngineName.CTRANSLATE2
_V = EngineName.VLLM
_E = EngineName.ECHO


@dataclass(frozen=True, slots=True)
class Architecture:
    """`name` as `config.json` spells it, and the engines that run it."""

    name: str
    family: Family
    engines: tuple[EngineName, ...]


_TCV, _TC, _TV = (_T, _C, _V), (_T, _C), (_T, _V)

# What a yes of CTranslate2 means: it computes what Transformers computes, to the last digits. So Gemma 2 is a no: its
# attention is capped (`attn_logit_softcapping`), for which CTranslate2 has no counterpart.
_DECODERS: dict[str, tuple[EngineName, ...]] = {
    "ArceeForCausalLM": _TV,
    "BloomForCausalLM": _TCV,
    "CodeGenForCausalLM": _TC,
    "Cohere2ForCausalLM": _TV,
    "CohereForCausalLM": _TV,
    "Exaone4ForCausalLM": _TV,
    "FalconForCausalLM": _TCV,
    "GPT2LMHeadModel": _TCV,
    "GPTBigCodeForCausalLM": _TCV,
    "GPTJForCausalLM": _TCV,
    "GPTNeoForCausalLM": (_T,),
    "GPTNeoXForCausalLM": _TCV,
    "Gemma2ForCausalLM": _TV,
    "Gemma3ForCausalLM": _TCV,
    "GemmaForCausalLM": _TCV,
    "Glm4ForCausalLM": _TV,
    "GlmForCausalLM": _TV,
    "GraniteForCausalLM": _TV,
    "GraniteMoeForCausalLM": _TV,
    "LlamaForCausalLM": _TCV,
    "MistralForCausalLM": _TCV,
    "MixtralForCausalLM": _TV,
    "MptForCausalLM": _TV,
    "OPTForCausalLM": _TCV,
    "Olmo2ForCausalLM": _TV,
    "Olmo3ForCausalLM": _TV,
    "OlmoForCausalLM": _TV,
    "OlmoeForCausalLM": _TV,
    "Phi3ForCausalLM": _TCV,
    "PhiForCausalLM": _TCV,
    "Qwen2ForCausalLM": _TCV,
    "Qwen2MoeForCausalLM": _TV,
    "Qwen3ForCausalLM": _TCV,
    "Qwen3MoeForCausalLM": _TV,
    "SmolLM3ForCausalLM": _TV,
    "StableLmForCausalLM": _TV,
    "Starcoder2ForCausalLM": _TV,
    "EchoForCausalLM": (_E,),
}
_ENCODER_DECODERS: dict[str, tuple[EngineName, ...]] = {
    "BartForConditionalGeneration": _TC,
    "M2M100ForConditionalGeneration": _TC,
    "MBartForConditionalGeneration": _TC,
    "MT5ForConditionalGeneration": _TC,
    "MarianMTModel": _TC,
    "PegasusForConditionalGeneration": _TC,
    "T5ForConditionalGeneration": _TC,
    "UMT5ForConditionalGeneration": _TC,
}

ARCHITECTURES: Final[dict[str, Architecture]] = {
    **{name: Architecture(name, Family.DECODER, engines) for name, engines in _DECODERS.items()},
    **{name: Architecture(name, Family.ENCODER_DECODER, engines) for name, engines in _ENCODER_DECODERS.items()},
}

QUANTIZATIONS: Final[dict[EngineName, tuple[Quantization, ...]]] = {
    EngineName.TRANSFORMERS: (Quantization.NONE,),
    EngineName.CTRANSLATE2: (Quantization.NONE, Quantization.INT8_FLOAT16),
    EngineName.VLLM: (Quantization.NONE,),
    EngineName.ECHO: (Quantization.NONE,),
}

# What the engine computes in: (engine, quantization, device) → compute type. int8_float16 needs a GPU; on a CPU the
# same artifact is computed as int8_float32 (CTranslate2's own list of compute types for a CPU).
COMPUTE_TYPES: Final[dict[tuple[EngineName, Quantization, str], str]] = {
    (_T, Quantization.NONE, "cpu"): "float32",
    (_T, Quantization.NONE, "cuda"): "float16",
    (_C, Quantization.NONE, "cpu"): "float32",
    (_C, Quantization.NONE, "cuda"): "float16",
    (_C, Quantization.INT8_FLOAT16, "cpu"): "int8_float32",
    (_C, Quantization.INT8_FLOAT16, "cuda"): "int8_float16",
    (_V, Quantization.NONE, "cpu"): "float32",  # its bfloat16 on a CPU writes other text: ADR 18
    (_V, Quantization.NONE, "cuda"): "bfloat16",
    (_E, Quantization.NONE, "cpu"): "none",
    (_E, Quantization.NONE, "cuda"): "none",
}


def resolve_engine(architecture: str, optimization: EngineName | None) -> EngineName:
    """The engine that will run: the one asked for, or for "no optimization" the architecture's first.

    Raises `Invalid` (ENGINE_DOES_NOT_SUPPORT_ARCHITECTURE), naming the engines that can.
    """
    known = ARCHITECTURES.get(architecture)
    engines = known.engines if known else ()
    if optimization is None and engines:
        return engines[0]
    if optimization is not None and optimization in engines:
        return optimization
    wanted = optimization or EngineName.TRANSFORMERS
    instead = ", ".join(repr(_wire(engine)) for engine in engines) or "none: no engine runs it"
    raise Invalid(
        f"{wanted} does not run {architecture}; optimizationType that can: {instead}",
        reason=Reason.ENGINE_DOES_NOT_SUPPORT_ARCHITECTURE,
        field="optimizationInfo.optimizationType",
    )


def card_on(engine: EngineName, card: ModelCard) -> tuple[ModelCard, tuple[str, ...]]:
    """The card as far as `engine` can serve the model, with a warning where that is less than the whole.

    Raises `Invalid` (ENGINE_DOES_NOT_SUPPORT_ARCHITECTURE) for a model that is an exception of its architecture.
    """
    if engine is not EngineName.CTRANSLATE2:
        return card, ()
    if card.ctranslate2_cannot:
        raise Invalid(
            f"{engine} runs {card.architecture}, but not this model: {card.ctranslate2_cannot}; optimizationType that "
            "can: ''",
            reason=Reason.ENGINE_DOES_NOT_SUPPORT_ARCHITECTURE,
            field="optimizationInfo.optimizationType",
        )
    if card.plain_context is None or card.plain_context >= (card.context_length or 0):
        return card, ()
    cut = (
        f"{engine} serves a context of {card.plain_context} tokens instead of the model's {card.context_length}: past "
        "them it would not compute what the model was trained for; optimizationType '' serves all"
    )
    return replace(card, context_length=card.plain_context), (cut,)


def check_quantization(engine: EngineName, quantization: Quantization) -> None:
    """Raise `Invalid` (QUANTIZATION_NOT_SUPPORTED) unless `engine` knows `quantization`."""
    if quantization in QUANTIZATIONS[engine]:
        return
    able = [_wire(name) for name, known in QUANTIZATIONS.items() if quantization in known]
    raise Invalid(
        f"quantizationType {quantization} needs optimizationType {' or '.join(able)}; "
        f"the engine here would be {engine}, which takes {', '.join(QUANTIZATIONS[engine])}",
        reason=Reason.QUANTIZATION_NOT_SUPPORTED,
        field="optimizationInfo.quantizationType",
    )


def compute_type(engine: EngineName, quantization: Quantization, device: str) -> str:
    """The precision the replicas really compute in."""
    return COMPUTE_TYPES[engine, quantization, device]


def _wire(engine: EngineName) -> str:
    """`engine` as `optimizationType` spells it: plain Transformers is the empty string."""
    return "" if engine in (EngineName.TRANSFORMERS, EngineName.ECHO) else str(engine)
