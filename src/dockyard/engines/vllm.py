"""vLLM: continuous batching in a process of its own; this is the asynchronous front of it, on the worker's loop."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from dockyard.domain.adapter_slots import VLLM_SLOTS, VLLM_TOKENS_AT_ONCE
from dockyard.domain.compatibility import VLLM_MODULES
from dockyard.engines.base import Chance, Generation, Row
from dockyard.engines.children import end_without_engine
from dockyard.engines.constraint import Constraints, Guide
from dockyard.engines.failures import translated
from dockyard.engines.vllm_steps import logging_config, steps_told
from dockyard.engines.vocabulary import read_vocabulary
from dockyard.errors import Failed, Reason
from dockyard.protocols.generation import Adapter, WorkerSpec

# Read when vLLM is imported. Replicas share the cores by their numbers of threads; bound to cores, they would all take
# the first ones.
os.environ |= {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_CONFIG_PATH": logging_config(),
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # the processor of constraints is of the first one's kind
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # or it would not take "uni" on a CPU, see `_options`
}

# By name: vLLM is not in the environment in which types are checked.
_vllm = import_module("vllm")
_EngineArgs = import_module("vllm.engine.arg_utils").AsyncEngineArgs
_LoRARequest = import_module("vllm.lora.request").LoRARequest
_DELTA = import_module("vllm.sampling_params").RequestOutputKind.DELTA
_AsyncLLM = import_module("vllm.v1.engine.async_llm").AsyncLLM
_EngineDead: type[Exception] = import_module("vllm.v1.engine.exceptions").EngineDeadError
_constraint: Any = import_module("dockyard.engines.constraint_vllm")

# Of those that one batch may compute with, and of those that are kept in memory.
_ADAPTERS = {"max_loras": VLLM_SLOTS, "max_cpu_loras": 32, "lora_target_modules": sorted(VLLM_MODULES)}


def create(spec: WorkerSpec) -> "VllmEngine":
    return VllmEngine(spec)


class VllmEngine:
    name = "vllm"
    can_seed = True

    def __init__(self, spec: WorkerSpec) -> None:
        self.capacity = spec.max_batch_size
        self.eos_token_ids = frozenset(spec.eos_token_ids)
        self.largest_batch = 0
        self.tell_start: Callable[[float, str], object] = lambda share, words: None
        self.constraints = Constraints(lambda: read_vocabulary(Path(spec.model_dir)), lambda: self.eos_token_ids)
        self._spec = spec
        self._engine: Any = None
        self._tasks: dict[Generation, asyncio.Task[None]] = {}
        self._adapters: dict[str, int] = {}  # version → number
        self._count = 0

    @property
    def running(self) -> int:
        return min(len(self._tasks), self.capacity)

    @property
    def waiting(self) -> int:
        return len(self._tasks) - self.running

    def load(self) -> None:
        if self._spec.device == "cpu":
            # Nor the functions that vLLM compiles by themselves: the first row with logprobs would wait some 20 s.
            os.environ["TORCH_COMPILE_DISABLE"] = "1"
        try:
            with steps_told(self.tell_start):
                self._engine = _AsyncLLM.from_engine_args(_EngineArgs(**self._options()))
        except Exception as error:  # the library has no error class of its own
            raise translated(error, "loading the model with vLLM") from error

    def submit(self, row: Row, adapter: Adapter | None = None) -> Generation:
        if self._engine is None:
            raise Failed("the engine has no model yet: load() comes before submit()")
        generation = Generation(row, self._leave)
        self._count += 1
        self._tasks[generation] = asyncio.create_task(
            self._generate(self._engine, generation, str(self._count), self._lora(adapter)), name=f"vllm {self._count}"
        )
        self.largest_batch = max(self.largest_batch, self.running)
        return generation

    def close(self) -> None:
        for generation in list(self._tasks):
            generation.cancel()
        if self._engine is not None:
            self._engine.shutdown()
            self._engine = None

    async def _generate(self, engine: Any, generation: Generation, request_id: str, lora: Any) -> None:
        row = generation.row
        try:
            anew = _from_its_beginning(row)
            if anew is None or not await self._run(engine, generation, anew, row.resume, f"{request_id}-anew", lora):
                await self._run(engine, generation, row, (), request_id, lora)
            generation.end()
        except _EngineDead:
            end_without_engine()
        except Exception as error:  # noqa: BLE001 - whatever the library throws ends this request only
            generation.end(translated(error, "generating with vLLM"))
        finally:
            self._tasks.pop(generation, None)

    async def _run(
        self, engine: Any, generation: Generation, row: Row, known: Sequence[int], request_id: str, lora: Any
    ) -> bool:
        """Deliver what `row` makes after `known`; False, with nothing delivered, if it does not make that first."""
        prompt = _vllm.TokensPrompt(prompt_token_ids=[*row.prompt, *row.resume])
        guide = row.constraint.begin(row.resume) if row.constraint is not None else None
        left = list(known)
        outputs = engine.generate(prompt, self._sampling(row), request_id, lora_request=lora)
        async with contextlib.aclosing(outputs):
            async for output in outputs:
                made = output.outputs[0]
                ids, chances = list(made.token_ids), _chances(made, row.logprobs)
                again = min(len(left), len(ids))
                if ids[:again] != left[:again]:
                    return False
                del left[:again]
                if guide is not None:
                    self._follow(guide, ids)
                generation.deliver(ids[again:], chances[again:])
        return not left

    def _lora(self, adapter: Adapter | None) -> Any:
        """vLLM reads the folder at the first request with that number."""
        if adapter is None:
            return None
        number = self._adapters.setdefault(adapter.version_id, len(self._adapters) + 1)
        return _LoRARequest(adapter.version_id, number, adapter.folder)

    def _follow(self, guide: Guide, ids: Sequence[int]) -> None:
        """What `ConstraintProcessor` did elsewhere: a grammar that could not go on ended the row there."""
        for token in ids:
            if token in self.eos_token_ids and not guide.complete:
                raise Failed("the constraint of the row could not go on", reason=Reason.ENGINE_FAILED)
            guide.take(token)

    def _leave(self, generation: Generation) -> None:
        """Cancelling the iteration makes vLLM abort the request at its next step."""
        task = self._tasks.get(generation)
        if task is not None:
            task.cancel()

    def _options(self) -> dict[str, Any]:
        spec = self._spec
        options: dict[str, Any] = {
            "model": spec.artifact_dir,
            "skip_tokenizer_init": True,  # ids in, ids out
            "load_format": "safetensors",
            "trust_remote_code": False,
            "dtype": spec.compute_type,
            "max_model_len": spec.context_length,  # None: the model's own
            "max_num_seqs": spec.max_batch_size,
            "tensor_parallel_size": max(1, spec.gpus),
            "enforce_eager": spec.device == "cpu",  # compiling would take a minute, and give a tenth to a fifth: ADR 18
            "enable_prefix_caching": True,
            "generation_config": "vllm",  # what a request leaves open is not filled from the folder
            "disable_log_stats": True,
            "logits_processors": [_constraint.PROCESSOR],
            "additional_config": _constraint.config(spec),
        }
        if spec.gpus <= 1:
            # The model in the engine's own process: one import of torch and vLLM less, and no shared memory between.
            options["distributed_executor_backend"] = "uni"
        if spec.adapter is not None:
            options |= {"enable_lora": True, "max_lora_rank": spec.adapter.rank, **_ADAPTERS}
            if spec.device == "cpu":
                options["max_num_batched_tokens"] = VLLM_TOKENS_AT_ONCE
        if spec.device == "cuda":
            # All of its GPUs that others leave free, and of an empty one not the last of it: the context itself, which
            # comes before vLLM looks, takes up to 3 %.
            options["gpu_memory_utilization"] = min(0.9, max(0.05, spec.gpu_share - 0.03))
        if spec.cache_bytes:
            options["kv_cache_memory_bytes"] = spec.cache_bytes
        return options

    def _sampling(self, row: Row) -> Any:
        wish = row.sampling
        greedy = wish.greedy
        return _vllm.SamplingParams(
            temperature=0.0 if greedy else wish.temperature,
            top_p=1.0 if greedy else wish.top_p,
            top_k=0 if greedy else wish.top_k,
            seed=None if greedy else wish.seed,
            max_tokens=row.max_new,
            stop_token_ids=sorted(self.eos_token_ids),
            ignore_eos=True,  # its own would be the tokenizer's, which it does not have
            detokenize=False,
            output_kind=_DELTA,
            logprobs=row.logprobs,
            extra_args=_constraint.arguments(row),
        )


def _from_its_beginning(row: Row) -> Row | None:
    """A resumed row that draws by a seed draws again what is known, as its generator of numbers cannot be moved on."""
    if not row.resume or row.sampling.greedy or row.sampling.seed is None:
        return None
    return replace(row, resume=(), max_new=row.max_new + len(row.resume))


def _chances(made: Any, count: int | None) -> list[Chance]:
    """Of the tokens made: the chosen one's, and the `count` most probable ones in their order."""
    if count is None or not made.logprobs:
        return []
    chances: list[Chance] = []
    for token, told in zip(made.token_ids, made.logprobs, strict=True):
        top = sorted((entry.rank, other, entry.logprob) for other, entry in told.items() if entry.rank <= count)
        chances.append(Chance(told[token].logprob, [(other, logprob) for _, other, logprob in top]))
    return chances
