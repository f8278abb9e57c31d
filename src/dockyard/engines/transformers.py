"""Plain Transformers: safetensors only, never the model's own code. Decoders batch continuously, others statically."""

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import torch

# By name, and two that are not used here: the package imports its parts at their first use, which would be 1.5 s while
# loading; so a process that has imported this module has imported all.
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    GenerationMixin,  # noqa: F401
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,  # noqa: F401
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.utils.logging import disable_progress_bar

from dockyard.engines.base import Row
from dockyard.engines.batched import BatchedEngine
from dockyard.engines.choosing import Chooser, Picker
from dockyard.engines.cohorts import by_key
from dockyard.engines.constraint import Constraints
from dockyard.engines.failures import translated
from dockyard.engines.joining import JoiningDecoder, settle_long_rope
from dockyard.engines.lane import Outlet
from dockyard.engines.vocabulary import read_vocabulary
from dockyard.errors import Failed, Reason
from dockyard.protocols.generation import WorkerSpec

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def create(spec: WorkerSpec) -> "TransformersEngine":
    return TransformersEngine(spec)


class TransformersEngine(BatchedEngine):
    name = "transformers"
    can_seed = True

    def __init__(self, spec: WorkerSpec) -> None:
        super().__init__(spec)
        self._start = [spec.decoder_start_token_id or 0]  # 0 is T5's, and most others'
        if spec.forced_bos_token_id is not None:
            self._start.append(spec.forced_bos_token_id)
        self._never: list[int] = []
        self._model: Any = None
        self.constraints = Constraints(lambda: read_vocabulary(Path(spec.model_dir)), lambda: self.eos_token_ids)

    def load(self) -> None:
        # The library reads weights on threads of its own; a team of OpenMP's that one of them leaves behind would slow
        # every later step down (ADR 8).
        torch.set_num_threads(1)
        disable_progress_bar()
        model_class: Any = AutoModelForCausalLM if self._decoder_only else AutoModelForSeq2SeqLM
        try:
            model, found = model_class.from_pretrained(
                self._spec.artifact_dir,
                dtype=_DTYPES[self._spec.compute_type],
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
            self._model = model.to(self._spec.device).eval()
        except Exception as error:  # the library has no error class of its own
            raise translated(error, "loading the model with Transformers") from error
        _refuse_missing(sorted(found["missing_keys"]))
        if not self.eos_token_ids:  # the model card knew none: the folder's own
            self.eos_token_ids = _ids(self._model.generation_config.eos_token_id)
        self._never = _never(self._model.generation_config)
        # `generate` fills what a request leaves open from here: nothing of the folder's (penalties, beams) may get in.
        self._model.generation_config = GenerationConfig()
        torch.set_num_threads(self._spec.threads)
        if self._decoder_only:
            settle_long_rope(self._model, self._spec.context_length)
            self._begin_continuous(JoiningDecoder(self._model, capacity=self.capacity, never=self._never))
        else:
            self._begin(self._generate, by_key(_known))

    def _generate(self, rows: Sequence[Row], emit: Outlet) -> None:
        """One batch of an encoder-decoder; blocks. All are known to the same length (`_known`)."""
        picker = Picker([Chooser(row) for row in rows], emit, self._never)
        pad = self._model.config.pad_token_id or 0  # M2M100 skips it in its positions
        ids, mask = _padded([row.prompt for row in rows], pad, self._model.device)
        known = torch.tensor([[*self._start, *row.resume] for row in rows], device=self._model.device)
        with torch.inference_mode():
            self._model.generate(
                input_ids=ids,
                attention_mask=mask,
                decoder_input_ids=known,
                generation_config=GenerationConfig(
                    max_new_tokens=max(row.max_new for row in rows),
                    do_sample=False,  # the picker has chosen already
                    pad_token_id=0,
                    decoder_start_token_id=self._start[0],
                ),
                logits_processor=LogitsProcessorList([Choice(picker, emit.flush)]),
                stopping_criteria=StoppingCriteriaList([RowsDone(picker)]),
            )


def _known(row: Row) -> Hashable:
    """Decoder prefixes of one batch have one length: absolute positions of a decoder know no padding."""
    return len(row.resume)


def _refuse_missing(names: list[str]) -> None:
    """Transformers fills weights that are absent with random numbers and goes on; here that is the end."""
    if names:
        raise Failed(
            f"the model's files lack {len(names)} of its weights, such as {names[0]}; fetch the model again and import "
            "it anew",
            reason=Reason.ARTIFACT_CORRUPT,
        )


class Choice(LogitsProcessor):
    """Leaves what the picker chose as the only token possible; `on_chosen` is told that a step is over."""

    def __init__(self, picker: Picker, on_chosen: Callable[[], None]) -> None:
        self._picker = picker
        self._on_chosen = on_chosen

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        chosen = self._picker.pick(scores)
        self._on_chosen()
        only = torch.full_like(scores, float("-inf"))
        return only.scatter_(1, chosen.unsqueeze(1).to(scores.device), 0.0)


class RowsDone(StoppingCriteria):
    """Ends `generate` once the picker is done with every row."""

    def __init__(self, picker: Picker) -> None:
        self._picker = picker

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> Any:
        return torch.tensor(self._picker.done, device=input_ids.device)


def _padded(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, padded on the right: an encoder counts its positions from the left."""
    width = max(len(prompt) for prompt in prompts)
    ids = [[*prompt, *[pad] * (width - len(prompt))] for prompt in prompts]
    mask = [[1] * len(prompt) + [0] * (width - len(prompt)) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _never(config: GenerationConfig) -> list[int]:
    """Tokens that the model must not choose, as Marian its padding: its weights do not rule it out by themselves."""
    banned = [ids[0] for ids in getattr(config, "bad_words_ids", None) or () if len(ids) == 1]
    return sorted({*banned, *(getattr(config, "suppress_tokens", None) or ())})


def _ids(value: int | list[int] | None) -> frozenset[int]:
    return frozenset() if value is None else frozenset([value] if isinstance(value, int) else value)
