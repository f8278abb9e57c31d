"""The engines' contract on a real GPU: all of it in float32; as they are served, what holds in any precision.

In 16 bit the last digits depend on who else is in the batch, and so, now and then, does a token.
"""

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from tests.contract.engine_rig import GREEDY, PROMPTS, VLLM, Case, Loaded, load_remote, load_spec, spec_of
from tests.contract.test_engines import (  # collected here again, over the engines below
    test_a_batch_of_mixed_lengths_gives_what_single_rows_give,  # noqa: F401
    test_a_resumed_row_goes_on_as_if_undisturbed,  # noqa: F401
    test_cancelling_frees_the_place,  # noqa: F401
    test_greedy_is_the_same_every_time,  # noqa: F401
    test_max_tokens_zero_generates_nothing,  # noqa: F401
    test_never_more_than_max_new_tokens,  # noqa: F401
    test_resumed_and_fresh_rows_share_a_batch,  # noqa: F401
    test_sixteen_at_once_run_in_batches_of_four_at_most,  # noqa: F401
    test_the_most_probable_token_alone_is_greedy,  # noqa: F401
    test_usage_finish_and_text,  # noqa: F401
)
from tests.contract.vllm_worker import vllm_worker
from tests.vllm_environment import ENVIRONMENTS, needs_vllm

from dockyard.domain.gpus import BFLOAT16_FROM
from dockyard.engine_builds import without_gpus
from dockyard.fleets.local.nvml import Nvml
from dockyard.protocols.generation import WorkerSpec

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class OnGpu:
    case: Case
    compute_type: str

    def __str__(self) -> str:
        return f"{self.case.engine}-{self.case.model}-{self.compute_type}"


EXACT = [
    OnGpu(Case(engine, model), "float32")
    for engine in ("transformers", "ctranslate2")
    for model in ("gpt2-kjv", "t5-date")
]
AS_SERVED = [
    *(
        OnGpu(Case("transformers", model), half)
        for model in ("gpt2-kjv", "t5-date")
        for half in ("bfloat16", "float16")
    ),
    *(OnGpu(Case("ctranslate2", model), "float16") for model in ("gpt2-kjv", "t5-date")),
    *(OnGpu(Case("ctranslate2", model, "int8_float16"), "int8_float16") for model in ("gpt2-kjv", "t5-date")),
]


def spec_on_gpu(wanted: OnGpu, artifacts: Path) -> WorkerSpec:
    """Skips what this machine's engines or GPU cannot do."""
    gpu = next(gpu for gpu in Nvml().read().gpus if gpu.fault is None)
    why = ENVIRONMENTS.without_gpus("vllm") if wanted.case == VLLM else without_gpus(wanted.case.engine)
    if why is not None:
        pytest.skip(why)
    if wanted.compute_type == "bfloat16" and gpu.capability < BFLOAT16_FROM:
        pytest.skip(f"{gpu.model} does not compute in bfloat16")
    return msgspec.structs.replace(
        spec_of(wanted.case, artifacts),
        device="cuda",
        compute_type=wanted.compute_type,
        gpus=1,
        gpu_ids=[gpu.uuid],
        gpu_share=gpu.free_bytes / gpu.total_bytes,
    )


Load = Callable[[OnGpu], Loaded]


@pytest.fixture
def load_on_gpu(converted_models: Path) -> Iterator[Load]:
    made: list[Loaded] = []

    def load(wanted: OnGpu) -> Loaded:
        made.append(load_spec(wanted.case, spec_on_gpu(wanted, converted_models)))
        return made[-1]

    yield load
    for loaded in made:
        loaded.engine.close()


@pytest.fixture(params=EXACT, ids=str)
async def loaded(request: pytest.FixtureRequest, load_on_gpu: Load) -> Loaded:
    return load_on_gpu(request.param)


@pytest.fixture(params=AS_SERVED, ids=str)
async def served(request: pytest.FixtureRequest, load_on_gpu: Load) -> Loaded:
    return load_on_gpu(request.param)


async def test_it_says_the_same_again_and_no_more_than_asked(served: Loaded) -> None:
    row = served.row(PROMPTS[served.case.model][0])
    first = await served.ids(row)
    assert first
    assert await served.ids(row) == first
    assert await served.ids(served.row(PROMPTS[served.case.model][0], 2)) == first[:2]


async def test_a_batch_runs_at_once_and_ends(served: Loaded) -> None:
    rows = [served.row(prompt, 5 + 4 * i) for i, prompt in enumerate(PROMPTS[served.case.model])]
    made = await asyncio.gather(*map(served.ids, rows))
    assert all(0 < len(ids) <= row.max_new for ids, row in zip(made, rows, strict=True))
    assert served.engine.largest_batch > 1


@pytest.mark.parametrize("wanted", [one for one in AS_SERVED if one.case.model == "t5-date"], ids=str)
async def test_dates_come_out_in_every_precision(wanted: OnGpu, load_on_gpu: Load) -> None:
    """The model is sure of itself, so that the last digits decide nothing."""
    loaded = load_on_gpu(wanted)
    texts = [loaded.tokenizer.decode(await loaded.ids(loaded.row(prompt))) for prompt in PROMPTS["t5-date"][:3]]
    assert [text.replace("</s>", "").strip() for text in texts] == ["2014-03-03", "1999-07-04", "2033-12-25"]


@needs_vllm
async def test_vllm_on_a_gpu(converted_models: Path) -> None:
    half = OnGpu(VLLM, "float16")
    spec = msgspec.structs.replace(spec_on_gpu(half, converted_models), cache_bytes=0)
    with vllm_worker(Path(tempfile.mkdtemp(prefix="vllm-")), spec) as worker:
        remote = load_remote(worker)
        rows = [remote.row(prompt, 8, sampling=GREEDY) for prompt in PROMPTS["gpt2-kjv"]]
        assert all(await asyncio.gather(*map(remote.ids, rows)))
