"""Generation over the socket: streams, batches, resumes, refusals."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.conversion import MODELS
from tests.integration.worker.conftest import Start
from tests.integration.worker_rig import gpt2_spec, text_of

from dockyard.protocols.generation import Usage

PROMPT = "And God said"


async def test_a_stream_resumed_anywhere_gives_the_same_text(start_worker: Start, converted: Path) -> None:
    worker = await start_worker(**gpt2_spec(converted))
    await worker.until_ready()
    request: dict[str, Any] = {"prompt": PROMPT, "max_tokens": 20, "stop": ["LORD, and"]}
    whole = await worker.generate(**request)
    assert whole[-1].finish == "stop"
    assert text_of(whole).endswith("to the ")
    for cut in range(1, len(whole)):
        known = [token for event in whole[:cut] for token in event.ids]
        rest = await worker.generate(**request, resume=known)
        assert text_of(whole[:cut]) + text_of(rest) == text_of(whole)
        assert rest[-1] == whole[-1]


async def test_sixteen_requests_run_four_at_a_time(start_worker: Start, converted: Path) -> None:
    worker = await start_worker(**gpt2_spec(converted))
    await worker.until_ready()
    answers = await asyncio.gather(*[worker.generate(prompt=PROMPT, max_tokens=20) for _ in range(16)])
    assert {text_of(events) for events in answers} == {text_of(answers[0])}
    assert all(events[-1].usage == Usage(3, 20) for events in answers)
    assert (await worker.health()).largest_batch == 4


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"messages": [{"role": "user", "content": "hello"}]}, "NO_CHAT_TEMPLATE"),
        ({"prompt": PROMPT, "temperature": 1, "seed": 3}, "ENGINE_CANNOT"),
        ({"prompt": "Moses " * 300}, "CONTEXT_LENGTH_EXCEEDED"),
        ({"prompt": "Moses " * 30_000}, "CONTEXT_LENGTH_EXCEEDED"),
        ({"prompt": PROMPT, "max_tokens": "many"}, "WRONG_TYPE"),
        ({}, "MISSING_FIELD"),
    ],
)
async def test_refusals(start_worker: Start, converted: Path, request_: dict[str, Any], reason: str) -> None:
    worker = await start_worker(**gpt2_spec(converted))
    await worker.until_ready()
    status, error = await worker.refused(**request_)
    assert (status, error.kind, error.reason) == (400, "invalid", reason)


async def test_max_tokens_is_capped_to_the_context(start_worker: Start, converted: Path) -> None:
    worker = await start_worker(**gpt2_spec(converted, context_length=20))
    await worker.until_ready()
    events = await worker.generate(prompt=PROMPT, max_tokens=500)
    assert events[-1].finish == "length"
    assert events[-1].usage == Usage(3, 17)


async def test_chat_is_rendered_with_the_models_template(start_worker: Start, tmp_path: Path) -> None:
    """Echo answers with the prompt, so the answer shows it."""
    shutil.copy(MODELS / "echo" / "config.json", tmp_path)
    template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    )
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    worker = await start_worker(artifact_dir=str(tmp_path))
    assert (await worker.until_ready()).chat_template
    messages = [{"role": "system", "content": "be"}, {"role": "user", "content": "né"}]
    events = await worker.generate(messages=messages, max_tokens=100)
    assert text_of(events) == "<system>be<user>né>"
    assert events[-1].usage == Usage(20, 20)
