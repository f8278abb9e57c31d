"""What CTranslate2's loaders take for granted: activation, epsilon of the norms, heads, vocabulary, a decoder's start.

All of it is set as the loaded model has it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ctranslate2.specs import common_spec

_ACTIVATIONS = {
    "ReLU": common_spec.Activation.RELU,
    "SiLUActivation": common_spec.Activation.SWISH,
    "SiLU": common_spec.Activation.SWISH,
    "GELUActivation": common_spec.Activation.GELU,
    "GELU": common_spec.Activation.GELU,
    "NewGELUActivation": common_spec.Activation.GELUTanh,
    "FastGELUActivation": common_spec.Activation.GELUTanh,
    "GELUTanh": common_spec.Activation.GELUTanh,
    "QuickGELUActivation": common_spec.Activation.GELUSigmoid,
}
_EPSILONS = ("eps", "variance_epsilon")  # of a module


Finish = Callable[[Any], None]


def copy_activation(model: Any) -> Finish:
    """Reads the model at once; what it returns sets the specification."""
    found = {kind for module in model.modules() if (kind := _ACTIVATIONS.get(type(module).__name__)) is not None}

    def finish(spec: Any) -> None:
        for stack in (spec.decoder, getattr(spec, "encoder", None)):
            if stack is not None and len(found) == 1:
                stack.activation = np.int8(next(iter(found)))

    return finish


def copy_epsilon(model: Any) -> Finish:
    """The same for what the norms add to a variance; CTranslate2 has one number for all of them."""
    norms = [module for module in model.modules() if "Norm" in type(module).__name__]
    found = {value for norm in norms for name in _EPSILONS if type(value := getattr(norm, name, None)) is float}

    def finish(spec: Any) -> None:
        if len(found) == 1:
            spec.config.layer_norm_epsilon = next(iter(found))

    return finish


def copy_heads(spec: Any, config: Any) -> None:
    """BART and its kin may have other numbers of heads in the decoder than in the encoder."""
    heads = getattr(config, "decoder_attention_heads", None)
    if heads:
        spec.decoder.num_heads = np.int16(heads)


def copy_vocabulary(spec: Any, names: Mapping[int, str]) -> None:
    """One name per row of the embeddings: rows that no token has get one that nobody writes."""
    if hasattr(spec, "register_vocabulary"):
        spec.register_vocabulary(_named(names, spec.get_vocabulary_size()))
        return
    sizes = {"source": spec.get_source_vocabulary_size(), "target": spec.get_target_vocabulary_size()}
    for side, size in sizes.items():
        rows = size[0] if isinstance(size, list) else size
        spec._vocabularies[side][:] = [_named(names, rows)]


def copy_start(spec: Any, model: Any, names: Mapping[int, str]) -> None:
    """The decoder's first token by its id: the loaders guess it from the tokenizer's class.

    Special tokens that the tokenizer does not name get a name, too: the library reads no null.
    """
    if hasattr(spec, "encoder") and not spec.decoder.start_from_zero_embedding:
        for config in (model.config, model.generation_config):
            start = getattr(config, "decoder_start_token_id", None)
            if type(start) is int:
                spec.config.decoder_start_token = names.get(start, _unused(start))
    for name in ("bos_token", "eos_token", "unk_token", "decoder_start_token"):
        if getattr(spec.config, name, "") is None:
            setattr(spec.config, name, names.get(0, _unused(0)))


def _named(names: Mapping[int, str], rows: int) -> list[str]:
    return [names.get(index, _unused(index)) for index in range(rows)]


def _unused(index: int) -> str:
    return f"<dockyard_unused_{index}>"
