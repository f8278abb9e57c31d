"""One suite for every engine: what the worker relies on, whichever library is behind it."""

import asyncio
import shutil
from pathlib import Path

import msgspec
import pytest
from safetensors.numpy import load_file, save_file
from tests.contract.engine_rig import (
    ALL,
    GPT2,
    ON_VLLM,
    PROMPTS,
    T5,
    Case,
    Loaded,
    Loader,
    collected,
    load,
    spec_of,
    text_of,
)
from tests.conversion import MODELS

from dockyard.engines.base import Row, Sampling
from dockyard.engines.registry import import_engine
from dockyard.errors import Failed, Invalid, Reason
from dockyard.protocols.generation import GenerateRequest, Usage


@pytest.fixture(scope="session")
def artifacts(converted_models: Path) -> Path:
    return converted_models


@pytest.fixture(params=ALL)
async def loaded(request: pytest.FixtureRequest, loader: Loader) -> Loaded:
    return loader(request.param)


async def test_greedy_is_the_same_every_time(loaded: Loaded) -> None:
    row = loaded.row(PROMPTS[loaded.case.model][0])
    first = await loaded.ids(row)
    assert first
    assert await loaded.ids(row) == first


@pytest.mark.parametrize("choice", [Sampling(top_p=0, temperature=1), Sampling(top_k=1, temperature=1)], ids=str)
async def test_the_most_probable_token_alone_is_greedy(loaded: Loaded, choice: Sampling) -> None:
    prompt = PROMPTS[loaded.case.model][0]
    assert await loaded.ids(loaded.row(prompt, sampling=choice)) == await loaded.ids(loaded.row(prompt))


async def test_a_batch_of_mixed_lengths_gives_what_single_rows_give(loaded: Loaded) -> None:
    rows = [loaded.row(prompt, 5 + 4 * i) for i, prompt in enumerate(PROMPTS[loaded.case.model])]
    singles = [await loaded.ids(row) for row in rows]
    assert await asyncio.gather(*map(loaded.ids, rows)) == singles


async def test_a_resumed_row_goes_on_as_if_undisturbed(loaded: Loaded) -> None:
    prompt = PROMPTS[loaded.case.model][0]
    whole = await loaded.ids(loaded.row(prompt))
    for cut in range(1, len(whole)):
        assert await loaded.ids(loaded.row(prompt, 16 - cut, whole[:cut])) == whole[cut:]


async def test_resumed_and_fresh_rows_share_a_batch(loaded: Loaded) -> None:
    """Cut at 0, 1, 3 and 6 tokens, so that the known parts differ in length."""
    prompts = PROMPTS[loaded.case.model]
    wholes = [await loaded.ids(loaded.row(prompt)) for prompt in prompts]
    cuts = [min(cut, len(whole) - 1) for cut, whole in zip((0, 1, 3, 6), wholes, strict=True)]
    rows = [loaded.row(p, 16 - c, w[:c]) for p, w, c in zip(prompts, wholes, cuts, strict=True)]
    rests = await asyncio.gather(*map(loaded.ids, rows))
    assert [[*w[:c], *rest] for w, c, rest in zip(wholes, cuts, rests, strict=True)] == wholes


async def test_never_more_than_max_new_tokens(loaded: Loaded) -> None:
    prompt = PROMPTS[loaded.case.model][0]
    whole = await loaded.ids(loaded.row(prompt))
    for limit in (1, 2, 3):
        assert await loaded.ids(loaded.row(prompt, limit)) == whole[:limit]


async def test_tokens_come_while_their_row_still_runs(loaded: Loaded) -> None:
    if loaded.case.engine == "echo":
        pytest.skip("it has no steps")
    for _ in range(20):  # a loop that is held up may get a short text at once
        generation = loaded.engine.submit(loaded.row(PROMPTS[loaded.case.model][0], 60))
        await anext(generation)
        if await collected(generation):
            return
    pytest.fail("each text came as a whole")


async def test_cancelling_frees_the_place(loaded: Loaded) -> None:
    """Four long rows fill the engine; once they are cancelled, the fifth runs and the engine is idle after it."""
    prompt = PROMPTS[loaded.case.model][0]
    gone = [loaded.engine.submit(loaded.row(prompt, 200)) for _ in range(4)]
    await anext(gone[0])
    after = loaded.engine.submit(loaded.row(prompt, 3))
    for generation in gone:
        generation.cancel()
    assert len(await collected(after)) == 3
    assert (loaded.engine.running, loaded.engine.waiting) == (0, 0)


async def test_sixteen_at_once_run_in_batches_of_four_at_most(loaded: Loaded) -> None:
    rows = [loaded.row(PROMPTS[loaded.case.model][0], 4)] * 16
    results = await asyncio.gather(*map(loaded.ids, rows))
    assert all(result == results[0] for result in results)
    assert loaded.engine.capacity == (4 if loaded.case.engine in ("echo", "vllm") else 5)  # one more in the reserve
    assert loaded.engine.largest_batch == (1 if loaded.case.engine == "echo" else 4)


@pytest.mark.parametrize("case", [*GPT2, *T5], ids=str)
async def test_batches_that_run_at_once_do_not_mix(case: Case, artifacts: Path) -> None:
    """Two lanes, where the engine has them, and the reserve: what comes later starts beside what runs already."""
    loaded = load(case, artifacts, workers=2)
    prompts = PROMPTS[case.model]
    singles = [await loaded.ids(loaded.row(prompt, 40)) for prompt in prompts]
    long = [loaded.engine.submit(loaded.row(prompt, 40)) for prompt in prompts]
    begun = await anext(long[0])
    late = [loaded.engine.submit(loaded.row(prompt, 2)) for prompt in prompts]
    first, *others = await asyncio.gather(*map(collected, (*long, *late)))
    loaded.engine.close()
    assert [[*begun, *first], *others[:3]] == singles
    assert others[3:] == [single[:2] for single in singles]


async def test_usage_finish_and_text(loaded: Loaded) -> None:
    prompt = PROMPTS[loaded.case.model][0]
    events = await loaded.answer(GenerateRequest(id="1", prompt=prompt, temperature=0, max_tokens=3))
    ids = [token for event in events for token in event.ids]
    assert events[-1].finish == "length"
    assert events[-1].usage == Usage(len(loaded.row(prompt).prompt), 3)
    assert ids == await loaded.ids(loaded.row(prompt, 3))
    assert text_of(events) == loaded.tokenizer.decode(ids)


async def test_a_stop_sequence_cuts_the_text_and_frees_the_place(loaded: Loaded) -> None:
    prompt = PROMPTS[loaded.case.model][0]
    request = GenerateRequest(id="1", prompt=prompt, temperature=0, max_tokens=16)
    whole = text_of(await loaded.answer(request))
    stop = whole[2:5]  # not where tokens begin
    events = await loaded.answer(GenerateRequest(id="2", prompt=prompt, temperature=0, max_tokens=16, stop=[stop]))
    assert text_of(events) == whole[: whole.index(stop)]
    assert events[-1].finish == "stop"


async def test_max_tokens_zero_generates_nothing(loaded: Loaded) -> None:
    events = await loaded.answer(GenerateRequest(id="1", prompt="a", max_tokens=0))
    assert [event.finish for event in events] == ["length"]
    assert events[0].usage is not None
    assert events[0].usage.completion_tokens == 0


async def test_a_top_k_above_the_vocabulary_takes_all_of_it(loaded: Loaded) -> None:
    """The smallest vocabulary here has 46 tokens."""
    row = loaded.row(PROMPTS[loaded.case.model][0], 3, sampling=Sampling(temperature=0.5, top_k=5000))
    assert len(await loaded.ids(row)) == 3


@pytest.mark.parametrize("case", [*GPT2, ON_VLLM], ids=str)
async def test_sampling_draws_different_texts(case: Case, loader: Loader) -> None:
    loaded = loader(case)
    row = loaded.row("And", 12, sampling=Sampling(temperature=1.5, top_k=100))
    results = await asyncio.gather(*[loaded.ids(row) for _ in range(4)])
    assert len({tuple(result) for result in results}) > 1


@pytest.mark.parametrize("case", T5, ids=str)
async def test_dates_come_out_exactly(case: Case, artifacts: Path) -> None:
    loaded = load(case, artifacts)
    request = GenerateRequest(id="1", prompt="date: monday, march 3, 2014", temperature=0, max_tokens=30)
    events = await loaded.answer(request)
    loaded.engine.close()
    assert text_of(events) == "2014-03-03"
    assert events[-1].finish == "stop"
    assert events[-1].usage == Usage(28, 10)


@pytest.mark.parametrize("case", [GPT2[1], ON_VLLM], ids=str)
async def test_others_in_float32_write_what_transformers_writes(case: Case, loader: Loader) -> None:
    texts: list[list[str]] = []
    for one in (GPT2[0], case):
        loaded = loader(one)
        requests = [GenerateRequest(id="1", prompt=p, temperature=0, max_tokens=40) for p in PROMPTS["gpt2-kjv"]]
        texts.append([text_of(await loaded.answer(request)) for request in requests])
    assert texts[0] == texts[1]


@pytest.mark.parametrize("case", [GPT2[0], ON_VLLM], ids=str)
async def test_a_seed_is_honoured_whatever_else_is_in_the_batch(case: Case, loader: Loader) -> None:
    loaded = loader(case)
    seeded = loaded.row("And God said", 12, sampling=Sampling(temperature=1.2, top_k=40, top_p=0.9, seed=7))
    others = [loaded.row("Moses", 12, sampling=Sampling(temperature=t)) for t in (0.0, 0.5, 2.0)]
    alone = await loaded.ids(seeded)
    together, *_ = await asyncio.gather(*map(loaded.ids, [seeded, *others]))
    resumed = await loaded.ids(Row(seeded.prompt, 7, seeded.sampling, alone[:5]))
    assert together == alone
    assert [*alone[:5], *resumed] == alone


async def test_a_seed_that_cannot_be_honoured_is_refused(artifacts: Path) -> None:
    loaded = load(GPT2[1], artifacts)
    with pytest.raises(Invalid) as caught:
        await loaded.answer(GenerateRequest(id="1", prompt="And", temperature=1, seed=3))
    loaded.engine.close()
    assert caught.value.reason is Reason.ENGINE_CANNOT
    assert caught.value.field == "seed"
    assert "engine ctranslate2 cannot honour a seed" in caught.value.message


def test_transformers_does_not_make_absent_weights_up(tmp_path: Path, artifacts: Path) -> None:
    folder = tmp_path / "lacking"
    shutil.copytree(MODELS / "t5-date", folder)
    weights = load_file(folder / "model.safetensors")
    absent = "decoder.final_layer_norm.weight"
    del weights[absent]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    spec = msgspec.structs.replace(spec_of(Case("transformers", "t5-date"), artifacts), artifact_dir=str(folder))
    engine = import_engine("transformers")(spec)
    with pytest.raises(Failed, match=absent) as caught:
        engine.load()
    assert caught.value.reason is Reason.ARTIFACT_CORRUPT
