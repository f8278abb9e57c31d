"""Which engine runs which architecture at which quantization, and in which precision on which device. Data first."""

from dataclasses import dataclass
from typing import Final

from dockyard.domain.card import Family
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


_DECODERS: dict[str, tuple[EngineName, ...]] = {
    "GPT2LMHeadModel": (_T, _C, _V),
    "OPTForCausalLM": (_T, _C, _V),
    "BloomForCausalLM": (_T, _C, _V),
    "LlamaForCausalLM": (_T, _C, _V),
    "MistralForCausalLM": (_T, _C, _V),
    "Qwen2ForCausalLM": (_T, _C, _V),
    "Qwen3ForCausalLM": (_T, _C, _V),
    "GemmaForCausalLM": (_T, _C, _V),
    "Gemma2ForCausalLM": (_T, _C, _V),
    "PhiForCausalLM": (_T, _V),
    "Phi3ForCausalLM": (_T, _V),
    "GPTJForCausalLM": (_T, _C, _V),
    "GPTNeoForCausalLM": (_T,),
    "GPTNeoXForCausalLM": (_T, _V),
    "FalconForCausalLM": (_T, _C, _V),
    "EchoForCausalLM": (_E,),
}
_ENCODER_DECODERS: dict[str, tuple[EngineName, ...]] = {
    "T5ForConditionalGeneration": (_T, _C),
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
    (_V, Quantization.NONE, "cpu"): "bfloat16",
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
