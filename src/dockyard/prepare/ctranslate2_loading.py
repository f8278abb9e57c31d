"""From a model folder to CTranslate2's specification, in three steps.

Transformers loads the model; CTranslate2's loader of its architecture arranges the weights; what that loader leaves out
or misreads is set as the loaded model has it.
"""

import gc
from pathlib import Path
from typing import Any

from ctranslate2.converters import TransformersConverter
from ctranslate2.converters.transformers import register_loader
from transformers import PreTrainedTokenizerFast

from dockyard.errors import Failed, Reason
from dockyard.prepare.ctranslate2_decoder import copy_attention, copy_rotary
from dockyard.prepare.ctranslate2_details import (
    copy_activation,
    copy_epsilon,
    copy_heads,
    copy_start,
    copy_vocabulary,
)
from dockyard.prepare.ctranslate2_limits import why_not
from dockyard.prepare.ctranslate2_names import restore_names
from dockyard.prepare.ctranslate2_phi import PhiLoader

register_loader("PhiConfig")(PhiLoader)


def spec_of(source: Path, dtype: Any) -> Any:
    """CTranslate2's specification of the model, its weights read as `dtype` whatever config.json says.

    Raises `Failed` (CONVERSION_FAILED) for what CTranslate2 cannot compute as Transformers does.
    """
    converter = _Converter(str(source), dtype)
    spec = converter.read()
    if spec is None:
        raise Failed("CTranslate2's converter does not know the model", reason=Reason.CONVERSION_FAILED)
    return spec


class _Converter(TransformersConverter):
    def __init__(self, source: str, dtype: Any) -> None:
        super().__init__(source)
        self._dtype = dtype
        self._finish: Any = None

    def read(self) -> Any:
        spec = self._load()
        return spec and self._finish(spec)

    def load_model(self, model_class: Any, model_name_or_path: str, **kwargs: Any) -> Any:
        # The converter collects garbage after every layer; what the imports left, a million objects, needs no visit
        # each time (SmolLM2-135M with its 30 layers: 9 s in place of 15).
        gc.freeze()
        options = {**kwargs, "dtype": self._dtype, "use_safetensors": True, "local_files_only": True}
        model, found = super().load_model(model_class, model_name_or_path, **options, output_loading_info=True)
        _refuse_missing(sorted(found["missing_keys"]))
        _refuse_what_would_be_lost(model.config)
        rotary = copy_rotary(model)  # reads what the next lines change, and what the loader takes apart
        attention = copy_attention(model)
        details = (copy_activation(model), copy_epsilon(model))
        restore_names(model)

        def finish(spec: Any) -> Any:
            for step in (attention, rotary, *details):
                step(spec)
            copy_heads(spec, model.config)
            copy_vocabulary(spec, self._names)
            copy_start(spec, model, self._names)
            return spec

        self._finish = finish
        return model

    def load_tokenizer(self, tokenizer_class: Any, model_name_or_path: str, **kwargs: Any) -> Any:
        # tokenizer.json and nothing else: the class that tokenizer_config.json names may want other files.
        tokenizer = PreTrainedTokenizerFast.from_pretrained(model_name_or_path, local_files_only=True)
        self._names = {token_id: token for token, token_id in tokenizer.get_vocab().items()}
        return tokenizer


def _refuse_what_would_be_lost(config: Any) -> None:
    why = why_not(config.to_dict())
    if why:
        raise Failed(
            f"CTranslate2 cannot compute the model as it was trained: {why}; deploy it without optimizationType",
            reason=Reason.CONVERSION_FAILED,
        )


def _refuse_missing(names: list[str]) -> None:
    """Transformers fills weights that are absent with random numbers and goes on; here that is the end."""
    if names:
        raise Failed(
            f"the model's files lack {len(names)} of its weights, such as {names[0]}; fetch the model again and import "
            "it anew",
            reason=Reason.CONVERSION_FAILED,
        )
