"""CTranslate2: a Generator for decoders, a Translator for encoder-decoders, in cohorts of equal sampling parameters."""

import ctypes
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ctranslate2
import msgspec

from dockyard.engines.base import Generation, Row
from dockyard.engines.batched import BatchedEngine
from dockyard.engines.cohorts import by_key
from dockyard.engines.failures import translated
from dockyard.engines.lane import Outlet
from dockyard.engines.prefill import pick_alike, prefill_length, replays, same_choice
from dockyard.errors import Failed, Reason
from dockyard.protocols.generation import WorkerSpec

# Where converters leave the target side's tokens, by id; shared first, as most models have one vocabulary.
_VOCABULARIES = ("vocabulary.json", "shared_vocabulary.json", "target_vocabulary.json")


def create(spec: WorkerSpec) -> "CTranslate2Engine":
    return CTranslate2Engine(spec)


class CTranslate2Engine(BatchedEngine):
    name = "ctranslate2"
    can_seed = False  # its random state is one per process
    constraints = None  # a batch knows no mask per step, and tells of each token chosen no alternatives

    def __init__(self, spec: WorkerSpec) -> None:
        super().__init__(spec, lanes=spec.workers)
        self._model: Any = None
        self._tokens: list[str] = []
        self._source_tokens: list[str] = []

    def load(self) -> None:
        folder = Path(self._spec.artifact_dir)
        model_class = ctranslate2.Generator if self._decoder_only else ctranslate2.Translator
        try:
            self._read_vocabulary(folder)
            if self._spec.device == "cuda":
                load_cublas()
            self._model = model_class(
                str(folder),
                device=self._spec.device,
                device_index=0,  # of those that the replica sees: its own
                compute_type=self._spec.compute_type,
                inter_threads=self._lanes + 1,  # they share the weights
                intra_threads=self._spec.threads,
            )
        except (RuntimeError, ValueError, MemoryError, OSError) as error:
            raise translated(error, "loading the CTranslate2 artifact") from error
        if self._decoder_only:
            self._begin(self._generate, pick_alike, _note_prefill)
        else:
            self._begin(self._translate, by_key(same_choice))

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

    def _generate(self, rows: Sequence[Row], emit: Outlet) -> None:
        """Blocks."""
        prefilled = prefill_length(rows)
        if prefilled == 0 or (len(rows) == 1 and replays(rows[0])):
            self._generate_stepwise(rows, prefilled, emit)
        else:
            self._generate_together(rows, prefilled, emit)

    def _generate_together(self, rows: Sequence[Row], prefilled: int, emit: Outlet) -> None:
        """CTranslate2 prefills what the shortest row has, less one token, and steps through the rest.

        Rows that replay get company by one that ends where the prefill must, and leaves at its first token.
        The callback sees new tokens only; `max_length` counts those of each row by itself.
        """
        known = [[*row.prompt, *row.resume] for row in rows]
        if replays(rows[0]):
            known.append(known[0][: prefilled + 1])
        self._model.generate_batch(
            [self._spelled(ids) for ids in known],
            include_prompt_in_result=False,
            max_length=max(row.max_new for row in rows),
            callback=StepByStep(emit, [0] * len(rows)),
            **self._options(rows[0]),
        )

    def _generate_stepwise(self, rows: Sequence[Row], prefilled: int, emit: Outlet) -> None:
        """Prefill what is said, which only a single row can, and step through all the rest.

        Here the callback sees all tokens after the first that is stepped through, and `max_length` counts them.
        """
        stepped = [[*row.prompt, *row.resume][prefilled:] for row in rows]
        known = [len(ids) - 1 for ids in stepped]
        self._model.generate_batch(
            [self._spelled(ids) for ids in stepped],
            static_prompt=self._spelled(rows[0].prompt[:prefilled]) or None,
            cache_static_prompt=False,
            include_prompt_in_result=True,
            max_length=max(count + row.max_new for count, row in zip(known, rows, strict=True)),
            callback=StepByStep(emit, known),
            **self._options(rows[0]),
        )

    def _translate(self, rows: Sequence[Row], emit: Outlet) -> None:
        """Blocks. The callback sees the target prefix, too, and `max_decoding_length` counts it."""
        forced = [] if self._spec.forced_bos_token_id is None else [self._spec.forced_bos_token_id]
        known = [len(forced) + len(row.resume) for row in rows]
        self._model.translate_batch(
            [[self._source_tokens[i] for i in row.prompt] for row in rows],
            target_prefix=[self._spelled([*forced, *row.resume]) for row in rows],
            max_input_length=0,  # the default would cut long prompts without a word
            max_decoding_length=max(len(forced) + len(row.resume) + row.max_new for row in rows),
            min_decoding_length=0,
            callback=StepByStep(emit, known),
            **self._options(rows[0]),
        )

    def _spelled(self, ids: Sequence[int]) -> list[str]:
        return [self._tokens[i] for i in ids]

    def _options(self, row: Row) -> dict[str, Any]:
        """Equal for all rows of a cohort. CTranslate2 refuses a top-k above the vocabulary."""
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


class StepByStep:
    """What CTranslate2 calls with each token: true ends its row. What a step makes goes to the loop together.

    No call says that a step is over. But rows are in the order of their lengths, the longest first: whoever has had his
    prompt read comes before those that speak already, and the row that was last in a step is so in the next. While that
    is not known each token goes by itself; were it wrong for once, the others' would come a step late.
    """

    def __init__(self, emit: Outlet, known: Sequence[int]) -> None:
        """`known`: from which step on each row's tokens are new; rows beyond are there for company."""
        self._emit = emit
        self._known = known
        self._step = -1
        self._before: int | None = None  # whose token came before this one
        self._last: int | None = None  # whose ends the step

    def __call__(self, result: Any) -> bool:
        index, step = result.batch_id, result.step
        if index >= len(self._known):
            return True
        if step != self._step:
            self._step, self._last = step, self._before
        stops = step >= self._known[index] and self._emit(index, result.token_id)
        if self._last is None or index == self._last:
            self._emit.flush()
        self._before = None if stops or result.is_last else index
        return stops


def load_cublas() -> None:
    """Load cuBLAS from the package that pip has it in, where CTranslate2 does not look: it asks the linker by the name
    of the library, which then is one that the process has already. Without such a package the system's own is found,
    or CTranslate2 says which library it misses.
    """
    try:
        found = find_spec("nvidia.cublas")
    except ModuleNotFoundError:  # there is no package `nvidia`
        return
    places = list(found.submodule_search_locations or ()) if found else []
    for name in ("libcublasLt.so.12", "libcublas.so.12"):  # the second needs the first
        for library in (Path(place) / "lib" / name for place in places):
            if library.exists():
                ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def _note_prefill(batch: Sequence[Generation]) -> None:
    """Say what is not usual, so that whoever resumes one of these can have it the same way."""
    prefilled = prefill_length([generation.row for generation in batch])
    for generation in batch:
        if generation.row.sampling.greedy and prefilled != len(generation.row.prompt) - 1:
            generation.prefilled = prefilled
