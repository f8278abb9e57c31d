"""CTranslate2: a Generator for decoders, a Translator for encoder-decoders, in cohorts of equal sampling parameters."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import ctranslate2
import msgspec

from dockyard.engines.base import Row
from dockyard.engines.batched import BatchedEngine
from dockyard.engines.cohorts import Emit
from dockyard.engines.failures import translated
from dockyard.errors import Failed, Reason
from dockyard.protocols.generation import WorkerSpec

# Where converters leave the target side's tokens, by id; shared first, as most models have one vocabulary.
_VOCABULARIES = ("vocabulary.json", "shared_vocabulary.json", "target_vocabulary.json")


def create(spec: WorkerSpec) -> "CTranslate2Engine":
    return CTranslate2Engine(spec)


class CTranslate2Engine(BatchedEngine):
    name = "ctranslate2"
    can_seed = False  # its random state is one per process

    def __init__(self, spec: WorkerSpec) -> None:
        super().__init__(spec)
        self._model: Any = None
        self._tokens: list[str] = []
        self._source_tokens: list[str] = []

    def load(self) -> None:
        folder = Path(self._spec.artifact_dir)
        model_class = ctranslate2.Generator if self._decoder_only else ctranslate2.Translator
        try:
            self._read_vocabulary(folder)
            self._model = model_class(
                str(folder),
                device=self._spec.device,
                compute_type=self._spec.compute_type,
                inter_threads=1,
                intra_threads=self._spec.threads,
            )
        except (RuntimeError, ValueError, MemoryError, OSError) as error:
            raise translated(error, "loading the CTranslate2 artifact") from error
        self._begin(self._generate if self._decoder_only else self._translate, _batch_key)

    def _read_vocabulary(self, folder: Path) -> None:
        try:
            target = next(folder / name for name in _VOCABULARIES if (folder / name).exists())
            source = folder / "source_vocabulary.json"
            self._tokens = msgspec.json.decode(target.read_bytes(), type=list[str])
            self._source_tokens = (
                msgspec.json.decode(source.read_bytes(), type=list[str]) if source.exists() else self._tokens
            )
            if not self.eos_token_ids:  # the model card knew none: the artifact's own
                config = msgspec.json.decode((folder / "config.json").read_bytes(), type=dict[str, Any])
                self.eos_token_ids = frozenset({self._tokens.index(config["eos_token"])})
        except (StopIteration, OSError, msgspec.DecodeError, KeyError, ValueError) as error:
            raise Failed(
                f"the artifact's vocabulary cannot be read ({type(error).__name__}); deploy again to convert it anew",
                reason=Reason.ARTIFACT_CORRUPT,
            ) from error

    def _generate(self, rows: Sequence[Row], emit: Emit) -> None:
        """Blocks. The callback sees new tokens only; `max_length` counts those of each row by itself."""
        self._model.generate_batch(
            [[self._tokens[i] for i in (*row.prompt, *row.resume)] for row in rows],
            include_prompt_in_result=False,
            max_length=max(row.max_new for row in rows),
            callback=lambda step: emit(step.batch_id, step.token_id),
            **self._options(rows[0]),
        )

    def _translate(self, rows: Sequence[Row], emit: Emit) -> None:
        """Blocks. The callback sees the target prefix, too, and `max_decoding_length` counts it."""
        known = [len(row.resume) for row in rows]
        self._model.translate_batch(
            [[self._source_tokens[i] for i in row.prompt] for row in rows],
            target_prefix=[[self._tokens[i] for i in row.resume] for row in rows],
            max_input_length=0,  # the default would cut long prompts without a word
            max_decoding_length=max(len(row.resume) + row.max_new for row in rows),
            min_decoding_length=0,
            callback=lambda step: step.step >= known[step.batch_id] and emit(step.batch_id, step.token_id),
            **self._options(rows[0]),
        )

    def _options(self, row: Row) -> dict[str, Any]:
        """Equal for all rows of a cohort, see `_batch_key`. CTranslate2 refuses a top-k above the vocabulary."""
        options: dict[str, Any] = {
            "beam_size": 1,
            "end_token": sorted(self.eos_token_ids),
            "return_end_token": True,
            "sampling_topk": 1,
        }
        if not row.sampling.greedy:
            options["sampling_topk"] = min(row.sampling.top_k, len(self._tokens))
            options["sampling_topp"] = row.sampling.top_p
            options["sampling_temperature"] = row.sampling.temperature
        return options


def _batch_key(row: Row) -> Hashable:
    """Equal sampling parameters; and prompts of one token apart from longer ones.

    CTranslate2 4.8.5 forwards at once what all prompts of a batch have but for one token. With a prompt of a single
    token that is nothing, and then it returns the rest of the other rows' prompts as if they were generated.
    """
    sampling = row.sampling
    choice = None if sampling.greedy else (sampling.temperature, sampling.top_p, sampling.top_k)
    return len(row.prompt) + len(row.resume) == 1, choice
