"""Transformers' continuous batching against the engine's own static batches, on one loaded model, without HTTP.

Each way is measured in every round, in turn: tokens/s of ten clients whose requests are alike, and of ten whose prompts
and lengths differ; how long the first token takes then; a short request behind a full batch and beside half of one,
against alone; and a burst that arrives one by one.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bench.models import BenchModel, ensure_endless_smollm2
from bench.outcome import Arguments, Outcome, installed_version, parse_arguments, recording
from bench.rows import BATCH, Run, Sizes, measure
from dockyard.engines.base import Row
from dockyard.engines.cohorts import by_key
from dockyard.engines.transformers import TransformersEngine
from dockyard.protocols.generation import WorkerSpec

STATIC, CONTINUOUS, EAGER = "static batches", "continuous, sdpa", "continuous, paged eager"
THREADS = 2
# Of 256 tokens each: ten rows of the longest prompt and text, and one more.
_BLOCKS = 48
_BATCH_TOKENS = 1024


def main() -> None:
    arguments = parse_arguments(__doc__, rounds=3)
    question = f"Tokens/s and delays of the ways that Transformers batches; SmolLM2-135M float32, {THREADS} threads"
    with recording(arguments, "continuous_batching", "Transformers: static or continuous", question) as outcome:
        for distribution in ("transformers", "torch"):
            outcome.versions[distribution] = installed_version(distribution)
        engine = _Engine(_spec(ensure_endless_smollm2()))
        engine.load()
        asyncio.run(_rounds(outcome, arguments, engine))
        for metric in {row.metric: None for row in outcome.rows}:
            better = "higher" if metric.startswith("tokens/s") else "lower"
            for name in (CONTINUOUS, EAGER):
                outcome.compare(metric, name, STATIC, better)
    os._exit(0)  # the libraries' threads are not to be waited for


async def _rounds(outcome: Outcome, arguments: Arguments, engine: "_Engine") -> None:
    """In one loop: the engine keeps to the one that it began in."""
    for number in range(arguments.rounds):
        for name in (STATIC, CONTINUOUS, EAGER):
            await _measure(outcome, number, engine, name, _sizes(arguments))


def _sizes(arguments: Arguments) -> Sizes:
    return Sizes(requests=10, long=24) if arguments.quick else Sizes(requests=30, long=100)


def _spec(model: BenchModel) -> WorkerSpec:
    return WorkerSpec(
        replica_id="bench",
        token="bench",
        engine="transformers",
        artifact_dir=str(model.folder),
        model_dir=str(model.folder),
        family="decoder",
        device="cpu",
        compute_type="float32",
        max_batch_size=BATCH,
        context_length=None,
        threads=THREADS,
        eos_token_ids=[5],  # a token that a text never holds
    )


class _Engine(TransformersEngine):
    """Lends its loaded model to the library's manager, too. Each way ends its threads before the other begins: an idle
    team of OpenMP's slows whoever computes (ADR 8).
    """

    @contextmanager
    def static(self) -> Iterator[None]:
        self._begin(self._generate, by_key(self._batch_key))
        try:
            yield
        finally:
            self.close()

    @contextmanager
    def continuous(self, attention: str) -> Iterator[Any]:
        from transformers import GenerationConfig
        from transformers.generation.configuration_utils import ContinuousBatchingConfig

        before = self._model.config._attn_implementation
        self._model.set_attn_implementation(attention)
        manager = self._model.init_continuous_batching(
            GenerationConfig(do_sample=False, eos_token_id=-1),
            ContinuousBatchingConfig(max_requests_per_batch=BATCH, num_blocks=_BLOCKS, max_batch_tokens=_BATCH_TOKENS),
        )
        manager.start()
        try:
            yield manager
        finally:
            manager.stop(block=True)
            self._model.set_attn_implementation(before)


async def _measure(outcome: Outcome, number: int, engine: _Engine, name: str, sizes: Sizes) -> None:
    def add(metric: str, unit: str, sample: float) -> None:
        outcome.add(number, metric, unit, name, sample)
        print(f"round {number + 1} {name}: {metric} {sample:.2f} {unit}", flush=True)

    if name == STATIC:
        with engine.static():
            await measure(_static(engine), sizes, add)
        return
    with engine.continuous("paged|eager" if name == EAGER else "sdpa") as manager:
        await measure(_continuous(manager), sizes, add)


def _static(engine: TransformersEngine) -> Run:
    async def run(row: Row, on_first: Callable[[], None] = lambda: None) -> None:
        first = True
        async for _ in engine.submit(row):
            if first:
                on_first()
            first = False

    return run


def _continuous(manager: Any) -> Run:
    count = iter(range(1_000_000))

    async def run(row: Row, on_first: Callable[[], None] = lambda: None) -> None:
        outputs: asyncio.Queue[Any] = asyncio.Queue()
        name = f"row-{next(count)}"
        manager.register_result_handler(name, outputs.put_nowait)
        manager.add_request(list(row.prompt), name, max_new_tokens=row.max_new, streaming=True, eos_token_id=-1)
        first = True
        while True:
            output = await outputs.get()
            if first:
                on_first()
            first = False
            if output.is_finished():
                if output.error:
                    raise RuntimeError(output.error)
                return

    return run


if __name__ == "__main__":
    main()
