"""vLLM: continuous batching in a process of its own; this is the asynchronous front of it, on the worker's loop."""

import asyncio
import os
from importlib import import_module
from typing import Any

from dockyard.engines.base import Generation, Row
from dockyard.engines.failures import translated
from dockyard.errors import Failed
from dockyard.protocols.generation import WorkerSpec

# Read when vLLM is imported. Replicas share the cores by their numbers of threads; bound to cores, they would all take
# the first ones.
os.environ |= {"VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_LOGGING_LEVEL": "WARNING"}

# By name: vLLM is not in the environment in which types are checked.
_vllm = import_module("vllm")
_EngineArgs = import_module("vllm.engine.arg_utils").AsyncEngineArgs
_DELTA = import_module("vllm.sampling_params").RequestOutputKind.DELTA
_AsyncLLM = import_module("vllm.v1.engine.async_llm").AsyncLLM
_EngineDead: type[Exception] = import_module("vllm.v1.engine.exceptions").EngineDeadError

EXIT_ENGINE_DEAD = 4


def create(spec: WorkerSpec) -> "VllmEngine":
    return VllmEngine(spec)


class VllmEngine:
    name = "vllm"
    can_seed = True

    def __init__(self, spec: WorkerSpec) -> None:
        self.capacity = spec.max_batch_size
        self.eos_token_ids = frozenset(spec.eos_token_ids)
        self.largest_batch = 0
        self._spec = spec
        self._engine: Any = None
        self._tasks: dict[Generation, asyncio.Task[None]] = {}
        self._count = 0

    @property
    def running(self) -> int:
        return min(len(self._tasks), self.capacity)

    @property
    def waiting(self) -> int:
        return len(self._tasks) - self.running

    def load(self) -> None:
        spec = self._spec
        options: dict[str, Any] = {}
        if spec.cache_bytes:
            options["kv_cache_memory_bytes"] = spec.cache_bytes
        try:
            self._engine = _AsyncLLM.from_engine_args(
                _EngineArgs(
                    model=spec.artifact_dir,
                    skip_tokenizer_init=True,  # ids in, ids out
                    load_format="safetensors",
                    trust_remote_code=False,
                    dtype=spec.compute_type,
                    max_model_len=spec.context_length,  # None: the model's own
                    max_num_seqs=spec.max_batch_size,
                    tensor_parallel_size=max(1, spec.gpus),
                    enable_prefix_caching=True,
                    generation_config="vllm",  # what a request leaves open is not filled from the folder
                    disable_log_stats=True,
                    **options,
                )
            )
        except Exception as error:  # the library has no error class of its own
            raise translated(error, "loading the model with vLLM") from error

    def submit(self, row: Row) -> Generation:
        if self._engine is None:
            raise Failed("the engine has no model yet: load() comes before submit()")
        generation = Generation(row, self._leave)
        self._count += 1
        self._tasks[generation] = asyncio.create_task(
            self._generate(self._engine, generation, str(self._count)), name=f"vllm {self._count}"
        )
        self.largest_batch = max(self.largest_batch, self.running)
        return generation

    def close(self) -> None:
        for generation in list(self._tasks):
            generation.cancel()
        if self._engine is not None:
            self._engine.shutdown()
            self._engine = None

    async def _generate(self, engine: Any, generation: Generation, request_id: str) -> None:
        row = generation.row
        prompt = _vllm.TokensPrompt(prompt_token_ids=[*row.prompt, *row.resume])
        try:
            async for output in engine.generate(prompt, self._sampling(row), request_id):
                generation.deliver(output.outputs[0].token_ids)
            generation.end()
        except _EngineDead:
            os._exit(EXIT_ENGINE_DEAD)  # a replica without an engine must not look like one: its requests go elsewhere
        except Exception as error:  # noqa: BLE001 - whatever the library throws ends this request only
            generation.end(translated(error, "generating with vLLM"))
        finally:
            self._tasks.pop(generation, None)

    def _leave(self, generation: Generation) -> None:
        """Cancelling the iteration makes vLLM abort the request at its next step."""
        task = self._tasks.get(generation)
        if task is not None:
            task.cancel()

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
        )
