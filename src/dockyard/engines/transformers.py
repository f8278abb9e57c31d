"""Plain Transformers: safetensors only, never the model's own code. Static batches, sampling parameters per row."""

import random
from collections.abc import Hashable, Sequence
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

from dockyard.engines.base import Chance, Row
from dockyard.engines.batched import BatchedEngine
from dockyard.engines.cohorts import by_key
from dockyard.engines.constraint import Constraints
from dockyard.engines.constraint_mask import bar_
from dockyard.engines.failures import translated
from dockyard.engines.lane import Emit
from dockyard.engines.vocabulary import read_vocabulary
from dockyard.errors import DockyardError, Failed, Reason
from dockyard.protocols.generation import WorkerSpec

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# Candidates sorted at each step whatever the rows ask for, so that a row's draw does not depend on its neighbours.
_CANDIDATES = 100


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
        self._begin(self._generate, by_key(self._batch_key))

    def _batch_key(self, row: Row) -> Hashable:
        """Decoder prefixes of one batch have one length: absolute positions of a decoder know no padding."""
        return None if self._decoder_only else len(row.resume)

    def _generate(self, rows: Sequence[Row], emit: Emit) -> None:
        """Blocks. A decoder goes on at the right, so its rows are padded on the left; an encoder counts its positions
        from the left. `_Picker` chooses, streams and stops.
        """
        picker = _Picker(rows, emit, self._never)
        prompts = [[*row.prompt, *row.resume] if self._decoder_only else list(row.prompt) for row in rows]
        pad = 0 if self._decoder_only else self._model.config.pad_token_id or 0  # M2M100 skips it in its positions
        ids, mask = _padded(prompts, pad, self._model.device, left=self._decoder_only)
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        if not self._decoder_only:
            prefixes = [[*self._start, *row.resume] for row in rows]
            inputs["decoder_input_ids"] = torch.tensor(prefixes, device=self._model.device)
        with torch.inference_mode():
            self._model.generate(
                **inputs,
                generation_config=GenerationConfig(
                    max_new_tokens=max(row.max_new for row in rows),
                    do_sample=False,  # the picker has chosen already
                    pad_token_id=0,
                    decoder_start_token_id=None if self._decoder_only else self._start[0],
                ),
                logits_processor=LogitsProcessorList([picker]),
                stopping_criteria=StoppingCriteriaList([_RowsDone(picker)]),
            )


def _refuse_missing(names: list[str]) -> None:
    """Transformers fills weights that are absent with random numbers and goes on; here that is the end."""
    if names:
        raise Failed(
            f"the model's files lack {len(names)} of its weights, such as {names[0]}; fetch the model again and import "
            "it anew",
            reason=Reason.ARTIFACT_CORRUPT,
        )


class _Picker(LogitsProcessor):
    """Chooses each row's next token by the row's own parameters and leaves it as the only one possible.

    A row's chance is a generator of its own: the same seed gives the same draws whatever else is in the batch. Rows
    with a constraint or with logprobs cost what they ask for; the others, nothing.
    """

    def __init__(self, rows: Sequence[Row], emit: Emit, never: Sequence[int]) -> None:
        self.done = [False] * len(rows)
        self._never = list(never)
        self._emit = emit
        self._chances = [_chance(row) for row in rows]
        self._all_greedy = all(row.sampling.greedy for row in rows)
        self._greedy = torch.tensor([row.sampling.greedy for row in rows])
        self._temperature = torch.tensor([[row.sampling.temperature or 1.0] for row in rows])
        self._top_p = torch.tensor([[row.sampling.top_p] for row in rows])
        self._top_k = torch.tensor([[row.sampling.top_k] for row in rows])
        self._guides = {index: row.constraint.begin(row.resume) for index, row in enumerate(rows) if row.constraint}
        self._tops = {index: row.logprobs for index, row in enumerate(rows) if row.logprobs is not None}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        logits = scores.float().cpu()
        logprobs = self._logprobs(logits)
        if self._never:
            logits[:, self._never] = float("-inf")
        if self._guides:
            self._constrain(logits)
        chosen = logits.argmax(dim=-1)
        if not self._all_greedy:
            chosen = torch.where(self._greedy, chosen, self._drawn(logits))
        for index, token in enumerate(chosen.tolist()):
            if not self.done[index]:
                chance = _chance_of(logprobs[index], token, self._tops[index]) if index in logprobs else None
                self.done[index] = self._emit(index, token, chance)
                if index in self._guides and not self.done[index]:
                    self._follow(index, token)
        only = torch.full_like(scores, float("-inf"))
        return only.scatter_(1, chosen.unsqueeze(1).to(scores.device), 0.0)

    def _logprobs(self, logits: torch.Tensor) -> dict[int, torch.Tensor]:
        """Of the rows that want them, before anything is taken out."""
        return {index: logits[index].log_softmax(dim=-1) for index in self._tops if not self.done[index]}

    def _constrain(self, logits: torch.Tensor) -> None:
        """Leave constrained rows what their schemas allow; a row that cannot go on ends, and no other."""
        for index, guide in self._guides.items():
            if self.done[index]:
                continue
            try:
                if not bar_(logits[index], guide.allowed()):
                    raise Failed("the schema allows no token that the model has", reason=Reason.ENGINE_FAILED)
            except DockyardError as error:
                self._fail(index, error)

    def _follow(self, index: int, token: int) -> None:
        try:
            self._guides[index].take(token)
        except DockyardError as error:
            self._fail(index, error)

    def _fail(self, index: int, error: DockyardError) -> None:
        self._emit.fail(index, error)
        self.done[index] = True

    def _drawn(self, logits: torch.Tensor) -> torch.Tensor:
        """One token per row: temperature, then top-k, then top-p, as Transformers' own warpers; then one draw."""
        count = min(logits.shape[-1], max(_CANDIDATES, int(self._top_k.max())))
        values, tokens = logits.topk(count, dim=-1)
        values = (values / self._temperature).masked_fill(torch.arange(count) >= self._top_k, float("-inf"))
        shares = values.softmax(dim=-1)
        before = shares.cumsum(dim=-1) - shares  # what the more probable candidates hold together
        shares = shares.masked_fill((before >= self._top_p) & (torch.arange(count) > 0), 0.0)
        draws = torch.tensor([[chance.random()] for chance in self._chances])
        sums = shares.double().cumsum(dim=-1)
        picks = (sums <= draws * sums[:, -1:]).sum(dim=-1, keepdim=True)
        return tokens.gather(1, picks.clamp_(max=count - 1)).squeeze(1)


class _RowsDone(StoppingCriteria):
    def __init__(self, picker: _Picker) -> None:
        self._picker = picker

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> Any:
        return torch.tensor(self._picker.done, device=input_ids.device)


def _chance_of(logprobs: torch.Tensor, token: int, count: int) -> Chance:
    top = logprobs.topk(min(count, logprobs.shape[-1]))
    return Chance(logprobs[token].item(), list(zip(top.indices.tolist(), top.values.tolist(), strict=True)))


def _chance(row: Row) -> random.Random:
    """The row's generator, past the draws that its resumed tokens took: a resumed row goes on as if undisturbed."""
    chance = random.Random(row.sampling.seed)
    for _ in row.resume:
        chance.random()
    return chance


def _padded(
    prompts: Sequence[Sequence[int]], pad: int, device: torch.device, *, left: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, padded on the left or on the right."""
    width = max(len(prompt) for prompt in prompts)
    ids: list[list[int]] = []
    mask: list[list[int]] = []
    for prompt in prompts:
        fill = width - len(prompt)
        ids.append([pad] * fill + list(prompt) if left else list(prompt) + [pad] * fill)
        mask.append([0] * fill + [1] * len(prompt) if left else [1] * len(prompt) + [0] * fill)
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _never(config: GenerationConfig) -> list[int]:
    """Tokens that the model must not choose, as Marian its padding: its weights do not rule it out by themselves."""
    banned = [ids[0] for ids in getattr(config, "bad_words_ids", None) or () if len(ids) == 1]
    return sorted({*banned, *(getattr(config, "suppress_tokens", None) or ())})


def _ids(value: int | list[int] | None) -> frozenset[int]:
    return frozenset() if value is None else frozenset([value] if isinstance(value, int) else value)
