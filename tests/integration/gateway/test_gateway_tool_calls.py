"""Calls of tools from real replicas with the echo engine, which say what they are told: whole, streamed, killed."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from tests.integration.gateway_rig import SHIP, Rig
from tests.integration.worker_rig import TOKEN, RunningWorker, spec, start

from dockyard.protocols.fleet import ReplicaAddress

# Says the last turn again. A family is told by its marks, wherever they stand in a template.
HERMES = "{{ messages[-1].content }}{% if tools %}{# <tool_call></tool_call> #}{% endif %}"
SILENT = "{{ messages[-1].content }}"
HISTORY = (
    "{% for message in messages %}{{ message.role }}:{{ message.content }}"
    "{% for call in message.tool_calls or [] %}{{ call.function.name }}{{ call.function.arguments.zone }}{% endfor %};"
    "{% endfor %}{{ tools[0].function.name }}{# <tool_call></tool_call> #}"
)
TOOLS: list[ChatCompletionToolParam] = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("time", "weather")
]
TIME = '{"name": "time", "arguments": {"zone": "größer 犬"}}'
WEATHER = '{"name": "weather", "arguments": {"city": "</tool_call>"}}'
SAID = f"I look. <tool_call>\n{TIME}\n</tool_call>\n<tool_call>{WEATHER}</tool_call>"
CALLS = [("time", '{"zone": "größer 犬"}'), ("weather", '{"city": "</tool_call>"}')]


@asynccontextmanager
async def workers(
    rig: Rig, directory: Path, template: str, count: int = 1, step_ms: int | None = None
) -> AsyncIterator[list[RunningWorker]]:
    model = directory / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"step_ms": step_ms} if step_ms is not None else {}))
    (model / "chat_template.jinja").write_text(template)
    running: list[RunningWorker] = []
    try:
        for index in range(count):
            made = spec(replica_id=f"rp-{index}", artifact_dir=str(model))
            running.append(await start(directory / str(index), made))
            await running[-1].until_ready()
            address = ReplicaAddress(token=TOKEN, socket=str(directory / str(index) / "s"))
            rig.add(made.replica_id, address, capacity=4)
        hyper: dict[str, Any] = {"temperature": 0, "max_tokens": 512, "top_p": 1, "top_k": 1, "stop": ()}
        rig.publish(hyper=SHIP.hyper.__class__(**hyper))
        yield running
    finally:
        for worker in running:
            await worker.close()


def asking(said: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": said}]


async def test_calls_whole_and_back_again(rig: Rig, tmp_path: Path) -> None:
    async with workers(rig, tmp_path, HERMES):
        chat = rig.openai().chat.completions
        reply = await chat.create(model="Ship 1", messages=asking(SAID), tools=TOOLS)
        (choice,) = reply.choices
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", "I look. ")
        made = choice.message.tool_calls or []
        assert [(call.function.name, call.function.arguments) for call in made if call.type == "function"] == CALLS
        assert len({call.id for call in made}) == 2
        answered: list[Any] = [
            *asking(SAID),
            choice.message.model_dump(),
            *({"role": "tool", "tool_call_id": call.id, "content": "done"} for call in made),
        ]
        reply = await chat.create(model="Ship 1", messages=answered, tools=TOOLS)
        assert (reply.choices[0].finish_reason, reply.choices[0].message.content) == ("stop", "done")
        assert reply.choices[0].message.tool_calls is None


async def test_calls_streamed(rig: Rig, tmp_path: Path) -> None:
    async with workers(rig, tmp_path, HERMES, step_ms=0):
        text, calls, finish = await streamed(rig.openai(), SAID)
    assert (text, calls, finish) == ("I look. ", CALLS, "tool_calls")


async def test_only_one_call_where_parallel_ones_are_not_wanted(rig: Rig, tmp_path: Path) -> None:
    async with workers(rig, tmp_path, HERMES):
        text, calls, finish = await streamed(rig.openai(), SAID, parallel_tool_calls=False)
        assert (text, calls, finish) == ("I look. ", CALLS[:1], "tool_calls")


@pytest.mark.parametrize("options", [{"tool_choice": "none", "tools": TOOLS}, {}])
async def test_without_tools_it_is_all_text(rig: Rig, tmp_path: Path, options: dict[str, Any]) -> None:
    async with workers(rig, tmp_path, HERMES):
        reply = await rig.openai().chat.completions.create(model="Ship 1", messages=asking(SAID), **options)
        assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == (SAID, "stop")
        assert reply.choices[0].message.tool_calls is None


async def test_a_call_that_is_cut_short_is_text(rig: Rig, tmp_path: Path) -> None:
    async with workers(rig, tmp_path, HERMES):
        reply = await rig.openai().chat.completions.create(
            model="Ship 1", messages=asking(SAID), tools=TOOLS, max_tokens=30
        )
        assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == (SAID[:30], "length")


async def test_the_template_gets_tools_and_turns(rig: Rig, tmp_path: Path) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "time", "arguments": '{"zone": "UTC"}'}}
    messages: list[Any] = [
        *asking("when?"),
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "12:00"},
    ]
    async with workers(rig, tmp_path, HISTORY):
        reply = await rig.openai().chat.completions.create(model="Ship 1", messages=messages, tools=TOOLS)
        assert reply.choices[0].message.content == "user:when?;assistant:timeUTC;tool:12:00;time"


async def test_a_template_without_tools_refuses_them(rig: Rig, tmp_path: Path) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "time", "arguments": "{}"}}
    called: list[Any] = [*asking("hi"), {"role": "assistant", "content": "", "tool_calls": [call]}]
    async with workers(rig, tmp_path, SILENT):
        chat = rig.openai().chat.completions
        for fields in ({"messages": asking("hi"), "tools": TOOLS}, {"messages": called}):
            with pytest.raises(openai.BadRequestError, match=r"chat_template\.jinja that reads `tools`") as refused:
                await chat.create(model="Ship 1", **fields)  # type: ignore[call-overload]
            assert refused.value.code == "TEMPLATE_WITHOUT_TOOLS"


async def test_a_form_of_calls_that_is_not_known_is_told(rig: Rig, tmp_path: Path) -> None:
    async with workers(rig, tmp_path, "{{ messages[-1].content }}{% if tools %}<function=x>{% endif %}"):
        with pytest.raises(openai.BadRequestError) as refused:
            await rig.openai().chat.completions.create(model="Ship 1", messages=asking("hi"), tools=TOOLS)
        assert refused.value.code == "TOOL_FORMAT_UNKNOWN"


async def test_each_choice_has_calls_of_its_own(rig: Rig, tmp_path: Path) -> None:
    async with workers(rig, tmp_path, HERMES, step_ms=0):
        reply = await rig.openai().chat.completions.create(model="Ship 1", messages=asking(SAID), tools=TOOLS, n=3)
    ids = {call.id for choice in reply.choices for call in choice.message.tool_calls or []}
    assert len(ids) == 6


async def test_kill_9_in_mid_call_leaves_no_seam(rig: Rig, tmp_path: Path) -> None:
    """Three choices each of four streams on three replicas, two of which die while something is said."""
    async with workers(rig, tmp_path, HERMES, 3, step_ms=4) as running:
        first_pieces = asyncio.Queue[None]()
        async with asyncio.TaskGroup() as group:
            streams = [
                group.create_task(streamed(rig.openai(), SAID, first=first_pieces, n=3, choice=index % 3))
                for index in range(4)
            ]
            for _ in streams:
                await first_pieces.get()
            for worker in running[:2]:
                worker.process.kill()
        assert [task.result() for task in streams] == [("I look. ", CALLS, "tool_calls")] * 4
        assert (rig.metric("dockyard_failovers_total", deployment="Ship 1") or 0) >= 4


async def streamed(
    client: openai.AsyncOpenAI, said: str, *, first: asyncio.Queue[None] | None = None, choice: int = 0, **options: Any
) -> tuple[str, list[tuple[str, str]], str | None]:
    """The text, the calls and the finish of one choice."""
    text, finish = "", None
    calls: dict[int, tuple[str, str]] = {}
    ids: set[str] = set()
    stream = await client.chat.completions.create(
        model="Ship 1", messages=asking(said), tools=TOOLS, stream=True, **options
    )
    async for chunk in stream:
        (told,) = chunk.choices
        if told.index != choice:
            continue
        if told.delta.content and not text and first is not None:
            first.put_nowait(None)
        text += told.delta.content or ""
        for call in told.delta.tool_calls or []:
            assert call.index not in calls
            assert call.id
            assert call.function is not None
            calls[call.index] = (call.function.name or "", call.function.arguments or "")
            ids.add(call.id)
        finish = told.finish_reason or finish
    assert len(ids) == len(calls)
    return text, [calls[index] for index in sorted(calls)], finish
