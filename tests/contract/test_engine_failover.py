"""A greedy generation that another replica takes over ends in the text of the undisturbed one, on every engine.

Here one engine is both replicas: what the second knows is what the protocol carries, prompt, ids and `prefilled`.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.contract.engine_rig import ALL, GREEDY, PROMPTS, Loaded, Loader
from tests.contract.wavering_model import EOS, VOCABULARY, make_wavering_model
from tests.once import made_once

from dockyard.engines.base import Engine, Row, Sampling
from dockyard.engines.registry import import_engine
from dockyard.prepare.runner import ProcessPreparer
from dockyard.protocols.generation import WorkerSpec
from dockyard.protocols.preparation import ConvertTask, ImportTask, PathSource, Progress
from dockyard.worker.tokenizer import load_tokenizer

SMOLLM2 = Path(__file__).parents[2] / ".cache" / "SmolLM2-135M-Instruct.Q4_1.gguf"
TOKENS = 60


@dataclass(frozen=True)
class Told:
    """What the gateway knows of a generation."""

    ids: list[int]
    prefilled: int | None


async def told(engine: Engine, row: Row) -> Told:
    generation = engine.submit(row)
    ids = [token async for tokens in generation for token in tokens]
    return Told(ids, generation.prefilled)


async def at_once(engine: Engine, rows: Sequence[Row]) -> list[Told]:
    return await asyncio.gather(*[told(engine, row) for row in rows])


def fresh(prompts: Sequence[Sequence[int]], tokens: int = TOKENS) -> list[Row]:
    return [Row(prompt, tokens, GREEDY) for prompt in prompts]


def broken(row: Row, whole: Told, cut: int) -> Row:
    """The row as the next replica gets it after `cut` tokens."""
    return Row(row.prompt, row.max_new - cut, GREEDY, whole.ids[:cut], whole.prefilled)


def breaks(rows: Sequence[Row], wholes: Sequence[Told], seed: int) -> tuple[list[Row], list[list[int]]]:
    """Each row cut somewhere, and what must still come."""
    chance = random.Random(seed)
    cuts = [chance.randrange(1, len(whole.ids)) for whole in wholes]
    resumed = [broken(row, whole, cut) for row, whole, cut in zip(rows, wholes, cuts, strict=True)]
    return resumed, [whole.ids[cut:] for whole, cut in zip(wholes, cuts, strict=True)]


async def ends_as_undisturbed(engine: Engine, rows: Sequence[Row], wholes: Sequence[Told], seed: int) -> None:
    """Together, as when a replica with a full batch dies; and one by one, on replicas with other company."""
    resumed, rests = breaks(rows, wholes, seed)
    assert [each.ids for each in await at_once(engine, resumed)] == rests
    assert [(await told(engine, row)).ids for row in resumed] == rests


@pytest.fixture(params=ALL)
async def loaded(request: pytest.FixtureRequest, loader: Loader) -> Loaded:
    return loader(request.param)


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_batch_ends_as_undisturbed(loaded: Loaded, seed: int) -> None:
    prompts = [loaded.tokenizer.encode(prompt, special=True) for prompt in PROMPTS[loaded.case.model]]
    rows = fresh(prompts)
    wholes = await at_once(loaded.engine, rows)
    await ends_as_undisturbed(loaded.engine, rows, wholes, seed)


@pytest.fixture(scope="session")
def wavering_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "wavering", lambda folder: make_wavering_model(folder / "model")) / "model"


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
async def engine(request: pytest.FixtureRequest, wavering_model: Path) -> AsyncIterator[Engine]:
    made = ctranslate2_int8(wavering_model, [EOS], threads=request.param)
    yield made
    made.close()


def ctranslate2_int8(artifact: Path, eos_token_ids: list[int], *, threads: int = 1) -> Engine:
    spec = WorkerSpec(
        replica_id="rp-1",
        token="t",
        engine="ctranslate2",
        artifact_dir=str(artifact),
        model_dir=str(artifact),
        family="decoder",
        device="cpu",
        compute_type="int8_float32",
        max_batch_size=8,
        context_length=512,
        threads=threads,
        eos_token_ids=eos_token_ids,
    )
    made = import_engine("ctranslate2")(spec)
    made.load()
    return made


def some_prompts(seed: int, count: int = 12, shortest: int = 1) -> list[list[int]]:
    chance = random.Random(seed)
    lengths = [chance.randint(shortest, 40) for _ in range(count)]
    return [[chance.randrange(1, VOCABULARY) for _ in range(length)] for length in lengths]


async def test_the_wavering_model_would_not_forgive_another_way_of_computing(engine: Engine) -> None:
    """So that the tests after this one can fail: known tokens, computed at once like a prompt, change the text."""
    rows = fresh(some_prompts(1))
    alone = [await told(engine, row) for row in rows]
    resumed, rests = breaks(rows, alone, seed=1)
    as_prompts = fresh([[*row.prompt, *row.resume] for row in resumed])
    texts = [(await told(engine, row)).ids for row in as_prompts]
    assert any(text[: len(rest)] != rest for text, rest in zip(texts, rests, strict=True))


@pytest.mark.parametrize("seed", [1, 2])
async def test_int8_rows_that_were_alone_end_as_undisturbed(engine: Engine, seed: int) -> None:
    rows = fresh(some_prompts(seed))
    wholes = [await told(engine, row) for row in rows]
    assert {whole.prefilled for whole in wholes} == {None}
    await ends_as_undisturbed(engine, rows, wholes, seed)


@pytest.mark.parametrize("seed", [1, 2])
async def test_int8_batches_of_mixed_lengths_end_as_undisturbed(engine: Engine, seed: int) -> None:
    rows = fresh(some_prompts(seed))
    wholes = await at_once(engine, rows)
    assert any(whole.prefilled is not None for whole in wholes)
    await ends_as_undisturbed(engine, rows, wholes, seed)


async def test_a_row_may_be_taken_over_again_and_again(engine: Engine) -> None:
    row, *others = fresh(some_prompts(4, count=8))
    whole, *_ = await at_once(engine, [row, *others])
    ids: list[int] = []
    prefilled = None
    for cut in (7, 20, TOKENS):
        known = Told(ids, prefilled)
        resumed = broken(row, known, len(ids)) if ids else row
        part, *_ = await at_once(engine, [resumed, *others])
        ids, prefilled = [*ids, *part.ids][:cut], part.prefilled if part.prefilled is not None else prefilled
    assert ids == whole.ids


async def test_company_of_the_same_length_changes_nothing(engine: Engine) -> None:
    """An int8 row's numbers are its own: only how much of its prompt is computed at once makes a difference."""
    rows = fresh([prompt[:10] for prompt in some_prompts(5, count=8, shortest=10)])
    alone = [(await told(engine, row)).ids for row in rows]
    assert [each.ids for each in await at_once(engine, rows)] == alone


async def test_a_resumed_row_that_draws_goes_on(engine: Engine) -> None:
    """There is nothing to be equal to; it makes the tokens that were left."""
    drawn = Row([5, 6, 7], 12, Sampling(temperature=1.0), resume=[8, 9, 10])
    assert len((await told(engine, drawn)).ids) <= 12


@pytest.mark.smollm2
@pytest.mark.skipif(not SMOLLM2.exists(), reason="scripts/fetch_smollm2.py could not get the weights")
async def test_smollm2_in_int8_ends_as_undisturbed(tmp_path: Path) -> None:
    """150 tokens of a story, broken after 15, alone and in company."""
    artifact, source = await _converted(tmp_path)
    tokenizer = load_tokenizer(source)
    prompts = ("Once upon a time", "The capital of France is", "My grandmother used to say that whoever")
    rows = fresh([tokenizer.encode(prompt, special=True) for prompt in prompts], 150)
    engine = ctranslate2_int8(artifact, [2])
    alone = await told(engine, rows[0])
    assert (await told(engine, broken(rows[0], alone, 15))).ids == alone.ids[15:]
    wholes = await at_once(engine, rows)
    await ends_as_undisturbed(engine, rows, wholes, seed=1)
    engine.close()


async def _converted(folder: Path) -> tuple[Path, Path]:
    artifacts, scratch = str(folder / "artifacts"), str(folder / "scratch")
    preparer = ProcessPreparer(artifacts, scratch)

    async def quietly(_: Progress) -> None: ...

    source = PathSource(path=str(SMOLLM2))
    imported = await preparer.run(ImportTask(source=source, artifacts_dir=artifacts, scratch_dir=scratch), quietly)
    convert = ConvertTask(
        source_key=imported.key,
        engine="ctranslate2",
        quantization="int8_float16",
        artifacts_dir=artifacts,
        scratch_dir=scratch,
    )
    converted = await preparer.run(convert, quietly)
    return Path(preparer.artifact_dir(converted.key)), Path(preparer.artifact_dir(imported.key))
