"""How Transformers batches best: rows that join, as the engine does it, static batches, and the library's own manager.

Each way is measured in every round, in turn, on one loaded model without HTTP: tokens/s of ten clients whose requests
are alike, and of ten whose prompts and lengths differ; how long the first token takes then; a short request behind a
full batch and beside half of one, against alone; and a burst that arrives one by one.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from bench.models import ensure_endless_smollm2
from bench.outcome import Arguments, Outcome, installed_version, parse_arguments, recording
from bench.replicas import worker_spec
from bench.rows import BATCH, Run, Sizes, measure
from dockyard.engines.base import Row
from dockyard.engines.choosing import Chooser, Picker
from dockyard.engines.cohorts import by_key
from dockyard.engines.joining import JoiningDecoder
from dockyard.engines.lane import Outlet
from dockyard.engines.transformers import Choice, RowsDone, TransformersEngine

JOINING, STATIC, MANAGER, EAGER = "rows that join", "static batches", "manager, sdpa", "manager, paged eager"
THREADS = 2
# Of 256 tokens each: ten rows of the longest prompt and text, and one more.
_BLOCKS = 48
_BATCH_TOKENS = 1024


def main() -> None:
    arguments = parse_arguments(__doc__, rounds=3)
    question = f"Tokens/s and delays of the ways that Transformers batches; SmolLM2-135M float32, {THREADS} threads"
    with recording(arguments, "continuous_batching", "Transformers: rows that join, or batches", question) as outcome:
        for distribution in ("transformers", "torch"):
            outcome.versions[distribution] = installed_version(distribution)
        model = ensure_endless_smollm2()
        engine = _Engine(worker_spec("transformers", model.folder, model.folder, batch=BATCH, threads=THREADS))
        engine.load()
        asyncio.run(_rounds(outcome, arguments, engine))
        for metric in {row.metric: None for row in outcome.rows}:
            better = "higher" if metric.startswith("tokens/s") else "lower"
            for name in (STATIC, MANAGER, EAGER):
                outcome.compare(metric, JOINING, name, better)
    os._exit(0)  # the libraries' threads are not to be waited for


async def _rounds(outcome: Outcome, arguments: Arguments, engine: "_Engine") -> None:
    """In one loop: the engine keeps to the one that it began in."""
    for number in range(arguments.rounds):
        for name in (JOINING, STATIC, MANAGER, EAGER):
            async with engine.arranged(name) as run:
                await measure(run, _sizes(arguments), _adding(outcome, number, name))


def _sizes(arguments: Arguments) -> Sizes:
    return Sizes(requests=10, long=24) if arguments.quick else Sizes(requests=30, long=100)


def _adding(outcome: Outcome, number: int, name: str) -> Callable[[str, str, float], None]:
    def add(metric: str, unit: str, sample: float) -> None:
        outcome.add(number, metric, unit, name, sample)
        print(f"round {number + 1} {name}: {metric} {sample:.2f} {unit}", flush=True)

    return add


class _Engine(TransformersEngine):
    """Loaded once, with rows that meet in any of the ways. Each ends its threads before the next begins: an idle team
    of OpenMP's slows whoever computes (ADR 8).
    """

    @asynccontextmanager
    async def arranged(self, way: str) -> AsyncIterator[Run]:
        if way in (MANAGER, EAGER):
            with self._manager("paged|eager" if way == EAGER else "sdpa") as manager:
                yield _managed(manager)
            return
        if way == STATIC:
            self._begin(self._generate_together, by_key(lambda _: None))
        else:
            self._begin_continuous(JoiningDecoder(self._model, capacity=self.capacity, never=()))
        try:
            yield _submitted(self)
        finally:
            self.close()

    def _generate_together(self, rows: Sequence[Row], emit: Outlet) -> None:
        """A batch that nobody joins, padded on the left, as the library's `generate` has it."""
        picker = Picker([Chooser(row) for row in rows], emit, ())
        width = max(len(row.prompt) for row in rows)
        pads = [width - len(row.prompt) for row in rows]
        with torch.inference_mode():
            self._model.generate(
                input_ids=torch.tensor([[0] * pad + [*row.prompt] for pad, row in zip(pads, rows, strict=True)]),
                attention_mask=torch.tensor([[0] * pad + [1] * (width - pad) for pad in pads]),
                generation_config=GenerationConfig(
                    max_new_tokens=max(row.max_new for row in rows), do_sample=False, pad_token_id=0
                ),
                logits_processor=LogitsProcessorList([Choice(picker, emit.flush)]),
                stopping_criteria=StoppingCriteriaList([RowsDone(picker)]),
            )

    @contextmanager
    def _manager(self, attention: str) -> Iterator[Any]:
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


def _submitted(engine: TransformersEngine) -> Run:
    async def run(row: Row, on_first: Callable[[], None] = lambda: None) -> None:
        first = True
        async for _ in engine.submit(row):
            if first:
                on_first()
            first = False

    return run


def _managed(manager: Any) -> Run:
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
