"""Engines as the contract's suites hold them: each engine with each small model in each precision."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from tests.contract.vllm_worker import RemoteEngine, VllmWorker
from tests.conversion import MODELS, artifact_of
from tests.vllm_environment import needs_vllm

from dockyard.domain.devices import MIB
from dockyard.engines.base import Engine, Generation, Row, Sampling
from dockyard.engines.registry import import_engine
from dockyard.protocols.generation import GenerateEvent, GenerateRequest, WorkerSpec
from dockyard.worker.prompt import load_prompts
from dockyard.worker.serving import Serving
from dockyard.worker.tokenizer import Tokenizer, load_tokenizer

GREEDY = Sampling(temperature=0)


@dataclass(frozen=True)
class Case:
    engine: str
    model: str
    quantization: str = "float32"

    def __str__(self) -> str:
        return f"{self.engine}-{self.model}-{self.quantization}"


GPT2 = [
    Case("transformers", "gpt2-kjv"),
    Case("ctranslate2", "gpt2-kjv"),
    Case("ctranslate2", "gpt2-kjv", "int8_float16"),
]
T5 = [
    Case("transformers", "t5-date"),
    Case("ctranslate2", "t5-date"),
    Case("ctranslate2", "t5-date", "int8_float16"),
]
VLLM = Case("vllm", "gpt2-kjv")
ON_VLLM = pytest.param(VLLM, id=str(VLLM), marks=[needs_vllm, pytest.mark.timeout(900)])  # it takes long to start
CASES = [Case("echo", "echo", "none"), *GPT2, *T5]
ALL = [*(pytest.param(case, id=str(case)) for case in CASES), ON_VLLM]
PROMPTS = {
    "gpt2-kjv": ["And God said", "Moses", "In the beginning the LORD thy God came unto me, and said", "a"],
    "t5-date": ["date: monday, march 3, 2014", "date: 4 july 1999", "date: december 25, 2033", "date: 1/2/1960"],
    "echo": ["one", "and the second", "é", "🚢 ship"],
}


def spec_of(case: Case, artifacts: Path) -> WorkerSpec:
    model_dir = MODELS / case.model
    converted = artifact_of(artifacts, case.model, case.quantization)
    return WorkerSpec(
        replica_id="rp-1",
        token="t",
        engine=case.engine,
        artifact_dir=str(converted if case.engine == "ctranslate2" else model_dir),
        model_dir=str(model_dir),
        family="encoder_decoder" if case.model == "t5-date" else "decoder",
        device="cpu",
        compute_type={"none": "none", "float32": "float32", "int8_float16": "int8_float32"}[case.quantization],
        max_batch_size=4,
        context_length=None if case.model == "t5-date" else 256,
        threads=1,
        cache_bytes=64 * MIB if case.engine == "vllm" else 0,
        eos_token_ids={"gpt2-kjv": [0], "t5-date": [1], "echo": [256]}[case.model],
        decoder_start_token_id=0 if case.model == "t5-date" else None,
    )


@dataclass
class Loaded:
    case: Case
    engine: Engine
    tokenizer: Tokenizer
    serving: Serving

    def row(self, prompt: str, max_new: int = 16, resume: Sequence[int] = (), sampling: Sampling = GREEDY) -> Row:
        return Row(self.tokenizer.encode(prompt, special=True), max_new, sampling, resume)

    async def ids(self, row: Row) -> list[int]:
        return await collected(self.engine.submit(row))

    async def answer(self, request: GenerateRequest) -> list[GenerateEvent]:
        answer = await self.serving.answer(request, 0)
        return [event async for events in answer.events() for event in events]


def load(case: Case, artifacts: Path, *, workers: int = 1) -> Loaded:
    return load_spec(case, msgspec.structs.replace(spec_of(case, artifacts), workers=workers))


def load_spec(case: Case, spec: WorkerSpec) -> Loaded:
    engine = import_engine(case.engine)(spec)
    engine.load()
    tokenizer = load_tokenizer(Path(spec.model_dir))
    return Loaded(case, engine, tokenizer, Serving(engine, tokenizer, load_prompts(spec, tokenizer)))


def load_remote(worker: VllmWorker) -> Loaded:
    """vLLM, in the worker that all tests share."""
    engine, tokenizer = RemoteEngine(worker), load_tokenizer(Path(worker.spec.model_dir))
    return Loaded(VLLM, engine, tokenizer, Serving(engine, tokenizer, load_prompts(worker.spec, tokenizer)))


class Loader:
    """Loads what a test needs, and closes it after the test. `vllm` starts the worker, at the first call."""

    def __init__(self, artifacts: Path, vllm: Callable[[], VllmWorker]) -> None:
        self._artifacts = artifacts
        self._vllm = vllm
        self._loaded: list[Loaded] = []

    def __call__(self, case: Case, *, workers: int = 1) -> Loaded:
        made = load_remote(self._vllm()) if case == VLLM else load(case, self._artifacts, workers=workers)
        self._loaded.append(made)
        return made

    def close(self) -> None:
        for loaded in self._loaded:
            loaded.engine.close()


async def collected(generation: Generation) -> list[int]:
    return [token async for tokens in generation for token in tokens]


def text_of(events: Sequence[GenerateEvent]) -> str:
    return "".join(event.text for event in events)
