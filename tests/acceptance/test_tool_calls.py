"""Calls of tools through the whole product with the official client: a model's own template, a kill in mid-call."""

from typing import Any

import openai
import pytest
from tests.acceptance.server import Server, body

# The echo engine says its prompt again, which is the last turn.
TEMPLATE = "{{ messages[-1].content }}{% if tools %}{# <tool_call></tool_call> #}{% endif %}"
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Tromsø, 北"}}\n</tool_call>'
SAID = f"I look it up.{CALL}\n{CALL}"
TOOLS: list[Any] = [{"type": "function", "function": {"name": "weather"}}]
NAME = "weather teller"


@pytest.fixture(scope="module")
def teller(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("teller")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    model_id = server.import_echo(folder, name="teller", step_ms=5)
    return server.deploy(model_id, body(NAME, maxReplicas=1))["deploymentId"]


def test_calls_come_back_as_calls(server: Server, teller: str) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0)
    asked: list[Any] = [{"role": "user", "content": SAID}]
    reply = client.chat.completions.create(model=NAME, messages=asked, tools=TOOLS, n=2).choices
    assert [choice.finish_reason for choice in reply] == ["tool_calls"] * 2
    assert [choice.message.content for choice in reply] == ["I look it up."] * 2
    made: list[Any] = [call for choice in reply for call in choice.message.tool_calls or []]
    assert {call.function.arguments for call in made} == {'{"city": "Tromsø, 北"}'}
    assert len({call.id for call in made}) == 4
    turns = [
        *asked,
        reply[0].message,
        *({"role": "tool", "tool_call_id": call.id, "content": "ok"} for call in made[:2]),
    ]
    answer = client.chat.completions.create(model=NAME, messages=turns, tools=TOOLS).choices[0]
    assert (answer.message.content, answer.finish_reason) == ("ok", "stop")


def test_kill_9_in_mid_call(server: Server, teller: str) -> None:
    (replica,) = server.replicas(teller)
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0)
    asked: list[Any] = [{"role": "user", "content": SAID}]
    text, calls, finish = "", [], None
    for chunk in client.chat.completions.create(model=NAME, messages=asked, tools=TOOLS, stream=True):
        (choice,) = chunk.choices
        if not calls and choice.delta.tool_calls:
            server.kill_replica(replica["pid"])
        text += choice.delta.content or ""
        calls += [(call.index, call.function and call.function.name) for call in choice.delta.tool_calls or []]
        finish = choice.finish_reason or finish
    assert (text, calls, finish) == ("I look it up.", [(0, "weather"), (1, "weather")], "tool_calls")
    server.until(lambda: server.metric("dockyard_failovers_total", NAME) >= 1)
