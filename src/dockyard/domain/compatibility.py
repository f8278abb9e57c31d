"""Which engine runs which architecture at which quantization, and in which precision on which device. Data first."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from dockyard.domain.card import Family, ModelCard
from dockyard.domain.gpus import BFLOAT16_FROM, Capability
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
    "GPTNeoXForCausalLM": _TC,  # vLLM 0.32 runs it by a generic way, and writes other text
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
    "MptForCausalLM": (_T,),  # vLLM had it until 0.28
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
    "Qwen3MoeForCausalLM": (_T,),  # vLLM 0.32 writes other text of a tiny one; not looked into yet
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

# Those whose LoRA adapters vLLM adds while it computes; on the others it gets them merged. No mixtures of experts:
# each version of PEFT names their adapters otherwise.
VLLM_RANKS: Final = (16, 32, 64, 128, 256, 512)  # what it sets room aside for, one of them
VLLM_ADAPTERS: Final = frozenset(
    {
        "GemmaForCausalLM", "GraniteForCausalLM", "LlamaForCausalLM", "MistralForCausalLM", "OPTForCausalLM",
        "Phi3ForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM",
    }
)  # fmt: skip
# The modules that it does so for, as adapters name them: all between the vectors of layers. Room for embeddings and
# heads, which no such adapter has, would be the most of it.
VLLM_MODULES: Final = frozenset(
    {
        "q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "out_proj",
        "gate_proj", "up_proj", "gate_up_proj", "down_proj", "fc1", "fc2",
    }
)  # fmt: skip

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
    (_T, Quantization.NONE, "cuda"): "bfloat16",  # or what `half_precision` says; so also for vLLM
    (_C, Quantization.NONE, "cpu"): "float32",
    (_C, Quantization.NONE, "cuda"): "float16",
    (_C, Quantization.INT8_FLOAT16, "cpu"): "int8_float32",
    (_C, Quantization.INT8_FLOAT16, "cuda"): "int8_float16",
    (_V, Quantization.NONE, "cpu"): "float32",  # its bfloat16 on a CPU writes other text: ADR 18
    (_V, Quantization.NONE, "cuda"): "bfloat16",
    (_E, Quantization.NONE, "cpu"): "none",
    (_E, Quantization.NONE, "cuda"): "none",
}


def takes_adapters(card: ModelCard) -> bool:
    """Whether vLLM takes the adapter of `card` beside its base's weights."""
    if card.adapter is None or card.adapter.rank > VLLM_RANKS[-1]:
        return False
    known = card.architecture in VLLM_ADAPTERS and VLLM_MODULES.issuperset(card.adapter.modules)
    return card.adapter.plain and known


def resolve_engine(
    architecture: str,
    optimization: EngineName | None,
    quantization: Quantization = Quantization.NONE,
    absent: Collection[EngineName] = (),
) -> EngineName:
    """The engine that will run: the one asked for, or for "no optimization" the architecture's first.

    Raises `Invalid` (ENGINE_DOES_NOT_SUPPORT_ARCHITECTURE), naming the engines that can, as `instead` does.
    """
    known = ARCHITECTURES.get(architecture)
    engines = known.engines if known else ()
    if optimization is None and engines:
        return engines[0]
    if optimization is not None and optimization in engines:
        return optimization
    wanted = optimization or EngineName.TRANSFORMERS
    raise Invalid(
        f"{wanted} does not run {architecture}; {instead(architecture, quantization, absent)}",
        reason=Reason.ENGINE_DOES_NOT_SUPPORT_ARCHITECTURE,
        field="optimizationInfo.optimizationType",
    )


def instead(
    architecture: str,
    quantization: Quantization = Quantization.NONE,
    absent: Collection[EngineName] = (),
    but: EngineName | None = None,
) -> str:
    """What a refusal suggests: the engines that run the architecture, without `but`, and what each of them asks for.

    `absent` are those that the server lacks: they come last.
    """
    known = ARCHITECTURES.get(architecture)
    able = sorted((engine for engine in (known.engines if known else ()) if engine is not but), key=absent.__contains__)
    told = ", ".join(_way(engine, quantization, engine in absent) for engine in able)
    return f"optimizationType that can: {told or 'none, for no engine runs it'}"


def install_command(engine: EngineName) -> str:
    """What brings an engine to a server that lacks it."""
    return "dockyard engines install vllm" if engine is EngineName.VLLM else f"pip install 'dockyard[{engine}]'"


def _way(engine: EngineName, quantization: Quantization, absent: bool) -> str:
    asked = [] if quantization in QUANTIZATIONS[engine] else ["with quantizationType 'no_quantization'"]
    asked += [f"after `{install_command(engine)}` on the server"] if absent else []
    return " ".join((repr(_wire(engine)), *asked))


def card_on(
    engine: EngineName,
    card: ModelCard,
    quantization: Quantization = Quantization.NONE,
    absent: Collection[EngineName] = (),
) -> tuple[ModelCard, tuple[str, ...]]:
    """The card as far as `engine` can serve the model, with a warning where that is less than the whole.

    Raises `Invalid` (ENGINE_DOES_NOT_SUPPORT_ARCHITECTURE) for a model that is an exception of its architecture.
    """
    if engine is not EngineName.CTRANSLATE2:
        return card, ()
    if card.ctranslate2_cannot:
        raise Invalid(
            f"{engine} runs {card.architecture}, but not this model: {card.ctranslate2_cannot}; "
            + instead(card.architecture, quantization, absent, but=engine),
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
        f"quantizationType {quantization} needs optimizationType {' or '.join(able)}, on a model that it runs; "
        f"the engine here would be {engine}, which takes {', '.join(QUANTIZATIONS[engine])}",
        reason=Reason.QUANTIZATION_NOT_SUPPORTED,
        field="optimizationInfo.quantizationType",
    )


# Their numbers grow beyond what float16 holds (65,504), and the text becomes nonsense; vLLM refuses it for them.
_BEYOND_FLOAT16 = frozenset({"Gemma2ForCausalLM", "Gemma3ForCausalLM", "Glm4ForCausalLM"})


def compute_type(
    engine: EngineName,
    quantization: Quantization,
    device: str,
    card: ModelCard | None = None,
    capability: Capability = BFLOAT16_FROM,
) -> str:
    """The precision the replicas really compute in; where there is a choice, by `card` and the GPU's `capability`."""
    known = COMPUTE_TYPES[engine, quantization, device]
    chosen = device == "cuda" and card is not None and engine in (_T, _V)
    return half_precision(card, capability) if chosen and card is not None else known


def half_precision(card: ModelCard, capability: Capability) -> str:
    """What Transformers and vLLM compute in on a GPU: bfloat16 where the GPU does, unless float16 is how it is stored.

    bfloat16 has float32's range, so it takes what was stored in either. A model that float16 is too narrow for is
    computed in float32 on an older GPU, with twice the memory.
    """
    narrow = card.architecture in _BEYOND_FLOAT16
    if capability >= BFLOAT16_FROM and (card.dtype != "float16" or narrow):
        return "bfloat16"
    return "float32" if narrow else "float16"


def _wire(engine: EngineName) -> str:
    """`engine` as `optimizationType` spells it: plain Transformers is the empty string."""
    return "" if engine in (EngineName.TRANSFORMERS, EngineName.ECHO) else str(engine)
