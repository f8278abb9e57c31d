"""Constraints and logprobs on the engines that know them: JSON comes out, whatever the model would rather say."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from jsonschema_rs import validator_for
from tests.contract.engine_rig import VLLM, Case, Loaded, spec_of, text_of
from tests.contract.vllm_worker import VllmWorker
from tests.vllm_environment import needs_vllm

from dockyard.engines.registry import import_engine
from dockyard.errors import Invalid, Reason
from dockyard.protocols.generation import TOKEN_HEADER, GenerateEvent, GenerateRequest, TokenLogprob, decode_event
from dockyard.worker.prompt import load_prompts
from dockyard.worker.serving import Serving
from dockyard.worker.tokenizer import load_tokenizer

Ask = Callable[[GenerateRequest], Awaitable[list[GenerateEvent]]]

SCHEMAS: list[dict[str, Any]] = [
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 8},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
    },
    {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 1, "maxItems": 3},
    {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False},
    {"type": "string", "pattern": "^[a-z]{2}-[0-9]{2}$"},
    {
        "$defs": {"point": {"type": "array", "items": {"type": "integer", "maximum": 99, "minimum": 0}, "maxItems": 2}},
        "type": "object",
        "properties": {"at": {"$ref": "#/$defs/point"}, "note": {"anyOf": [{"type": "null"}, {"const": "é"}]}},
        "required": ["at", "note"],
        "additionalProperties": False,
    },
]
PROMPT = "And God said"
PAIR = json.dumps(SCHEMAS[0])


@pytest.fixture(params=["transformers", pytest.param("vllm", marks=[needs_vllm, pytest.mark.timeout(900)])])
async def ask(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ask]:
    """gpt2-kjv on each engine, asked as replicas are."""
    if request.param == "vllm":
        worker: VllmWorker = request.getfixturevalue("vllm")
        connector = aiohttp.UnixConnector(path=worker.path, limit=0)
        headers = {TOKEN_HEADER: worker.spec.token}
        async with aiohttp.ClientSession("http://replica", connector=connector, headers=headers) as session:
            yield lambda wanted: _ask_worker(session, wanted)
        return
    spec = spec_of(Case("transformers", "gpt2-kjv"), tmp_path)
    engine = import_engine("transformers")(msgspec.structs.replace(spec, max_batch_size=40))
    engine.load()
    tokenizer = load_tokenizer(Path(spec.model_dir))
    loaded = Loaded(VLLM, engine, tokenizer, Serving(engine, tokenizer, load_prompts(spec, tokenizer)))
    yield loaded.answer
    engine.close()


async def _ask_worker(session: aiohttp.ClientSession, wanted: GenerateRequest) -> list[GenerateEvent]:
    async with session.post("/generate", data=msgspec.json.encode(wanted)) as reply:
        assert reply.status == 200, await reply.text()
        return [decode_event.decode(line) async for line in reply.content]


def asked(prompt: str = PROMPT, **fields: Any) -> GenerateRequest:
    return GenerateRequest(**{"id": "1", "prompt": prompt, "temperature": 0, "max_tokens": 100, **fields})


def ids_of(events: list[GenerateEvent]) -> list[int]:
    return [token for event in events for token in event.ids]


def logprobs_of(events: list[GenerateEvent]) -> list[TokenLogprob]:
    return [one for event in events for one in event.logprobs]


async def test_200_of_200_match_their_schema(ask: Ask) -> None:
    chance = random.Random(5)
    words = ["And", "God", "said", "unto", "Moses,", "let", "there", "be", "light;", '{["', "\\", "é", "7"]
    schemas = [SCHEMAS[index % len(SCHEMAS)] for index in range(200)]
    wanted = [
        asked(
            " ".join(chance.choices(words, k=chance.randint(1, 6))),
            id=str(index),
            json_schema=json.dumps(schema),
            temperature=chance.choice([0, 0.7, 1.5]),
            top_p=chance.choice([0.5, 1]),
            seed=index,
        )
        for index, schema in enumerate(schemas)
    ]
    told = await asyncio.gather(*map(ask, wanted))
    valid = 0
    for schema, events in zip(schemas, told, strict=True):
        assert events[-1].finish == "stop", (schema, text_of(events))
        valid += validator_for(schema).is_valid(json.loads(text_of(events)))
    assert valid == 200


async def test_free_and_constrained_rows_share_a_batch(ask: Ask) -> None:
    free = asked(max_tokens=24)
    alone = text_of(await ask(free))
    first, made, other = await asyncio.gather(ask(free), ask(asked(json_schema=PAIR)), ask(asked(json_schema=PAIR)))
    assert text_of(first) == alone
    assert set(json.loads(text_of(made))) == {"name", "age"}
    assert text_of(other) == text_of(made)


async def test_a_constrained_row_is_resumed_anywhere(ask: Ask) -> None:
    """Also in the middle of what the grammar leaves no choice in, and right before the end."""
    whole = await ask(asked(json_schema=PAIR))
    ids = ids_of(whole)
    cuts = range(1, len(ids) + 1)
    rests = await asyncio.gather(*[ask(asked(json_schema=PAIR, resume=ids[:cut])) for cut in cuts])
    for cut, rest in zip(cuts, rests, strict=True):
        assert [*ids[:cut], *ids_of(rest)] == ids
        assert rest[-1].finish == "stop"


async def test_max_tokens_cuts_json_and_says_so(ask: Ask) -> None:
    events = await ask(asked(json_schema=PAIR, max_tokens=4))
    assert events[-1].finish == "length"
    whole = await ask(asked(json_schema=PAIR))
    assert text_of(whole).startswith(text_of(events))


async def test_any_object(ask: Ask) -> None:
    events = await ask(asked(json_schema='{"type":"object"}', stop=["}"]))
    assert text_of(events).startswith("{")


async def test_logprobs_of_every_token_and_the_most_probable_ones(ask: Ask) -> None:
    events = await ask(asked(max_tokens=12, logprobs=3))
    told = logprobs_of(events)
    assert len(told) == len(ids_of(events)) == 12
    assert b"".join(one.raw for one in told).decode() == text_of(events)
    for one in told:
        assert len(one.top) == 3
        assert one.logprob == pytest.approx(one.top[0].logprob) == max(other.logprob for other in one.top)
        assert one.raw == one.top[0].raw
        assert one.logprob <= 0
    assert [one.top for one in logprobs_of(await ask(asked(max_tokens=3, logprobs=0)))] == [[], [], []]
    assert not logprobs_of(await ask(asked(max_tokens=3)))


async def test_logprobs_are_the_models_own_under_a_constraint(ask: Ask) -> None:
    first = logprobs_of(await ask(asked(json_schema=PAIR, logprobs=1)))[0]
    free = logprobs_of(await ask(asked(max_tokens=1, logprobs=1)))[0]
    assert first.raw.startswith(b"{")
    assert first.top[0].raw == free.raw
    assert first.logprob < free.logprob


async def test_a_resumed_row_tells_the_logprobs_of_the_rest(ask: Ask) -> None:
    whole = await ask(asked(max_tokens=10, logprobs=2))
    rest = await ask(asked(max_tokens=10, logprobs=2, resume=ids_of(whole)[:4]))
    for one, other in zip(logprobs_of(whole)[4:], logprobs_of(rest), strict=True):
        assert one.raw == other.raw
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)


@pytest.mark.parametrize(("field", "value"), [("json_schema", "{}"), ("logprobs", 0)])
async def test_an_engine_that_sees_no_scores_refuses(field: str, value: Any, tmp_path: Path) -> None:
    spec = spec_of(Case("echo", "echo", "none"), tmp_path)
    tokenizer = load_tokenizer(Path(spec.model_dir))
    serving = Serving(import_engine("echo")(spec), tokenizer, load_prompts(spec, tokenizer))
    with pytest.raises(Invalid, match="transformers and vllm") as refused:
        await serving.answer(asked(**{field: value}), 0)
    assert refused.value.reason is Reason.ENGINE_CANNOT
