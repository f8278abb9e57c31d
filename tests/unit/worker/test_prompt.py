import json
from collections.abc import Sequence
from typing import Any

import pytest

from dockyard.errors import Invalid, Reason
from dockyard.protocols.generation import GenerateRequest
from dockyard.worker.prompt import Prompts
from dockyard.worker.tokenizer import ByteTokenizer, FileTokenizer
from dockyard.worker.tool_calls_formats import HERMES, ToolFormat


class Contents:
    """A template that says the contents and nothing else."""

    def __init__(self, *, reads_tools: bool = False, tool_format: ToolFormat | None = None) -> None:
        self.reads_tools = reads_tools
        self.tool_format = tool_format

    def render(self, messages: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] = ()) -> str:
        names = [tool["function"]["name"] for tool in tools]
        return "".join([*names, *(message["content"] for message in messages)])


def prompts(family: str = "decoder", context_length: int | None = 10, *, chat: bool = False) -> Prompts:
    return Prompts(ByteTokenizer(), Contents() if chat else None, family=family, context_length=context_length)


def request(**fields: Any) -> GenerateRequest:
    return GenerateRequest(id="1", **fields)


def test_text_ids_and_messages() -> None:
    assert prompts().ids_of(request(prompt="ab")) == [97, 98]
    assert prompts().ids_of(request(prompt_ids=[97, 98])) == [97, 98]
    assert prompts(chat=True).ids_of(request(messages=[{"role": "user", "content": "ab"}])) == [97, 98]


def test_special_tokens_go_around_a_text_and_not_around_a_rendered_chat(sentence_piece: FileTokenizer) -> None:
    made = Prompts(sentence_piece, Contents(), family="decoder", context_length=None)
    chat = made.ids_of(request(messages=[{"role": "user", "content": "a"}]))
    assert made.ids_of(request(prompt="a")) == [*chat, sentence_piece.encode("", special=True)[-1]]


def test_chat_without_a_template_names_the_other_route() -> None:
    with pytest.raises(Invalid, match="/v1/completions") as caught:
        prompts().ids_of(request(messages=[]))
    assert caught.value.reason is Reason.NO_CHAT_TEMPLATE


@pytest.mark.parametrize("fields", [{}, {"prompt": "a", "prompt_ids": [1]}])
def test_exactly_one_kind_of_prompt(fields: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="exactly one"):
        prompts().ids_of(request(**fields))


@pytest.mark.parametrize("fields", [{"prompt": ""}, {"prompt_ids": []}])
def test_an_empty_prompt(fields: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="empty"):
        prompts().ids_of(request(**fields))


def test_ids_outside_the_vocabulary() -> None:
    with pytest.raises(Invalid) as caught:
        prompts().ids_of(request(prompt_ids=[3, 257]))
    assert caught.value.reason is Reason.OUT_OF_RANGE


def test_a_prompt_that_fills_the_context_names_the_numbers() -> None:
    assert len(prompts().ids_of(request(prompt="a" * 9))) == 9
    with pytest.raises(Invalid, match=r"prompt has 10 tokens and max_tokens is 5.* context of 10 tokens") as caught:
        prompts().ids_of(request(prompt="a" * 10, max_tokens=5))
    assert caught.value.reason is Reason.CONTEXT_LENGTH_EXCEEDED


def test_an_encoder_may_be_filled() -> None:
    encoder = prompts("encoder_decoder")
    assert len(encoder.ids_of(request(prompt="a" * 10))) == 10
    with pytest.raises(Invalid):
        encoder.ids_of(request(prompt="a" * 11))


@pytest.mark.parametrize(
    ("family", "context_length", "room"),
    [
        ("decoder", 10, 4),
        ("decoder", None, 8),
        ("encoder_decoder", 10, 8),
        ("encoder_decoder", 9, 7),  # its own positions, not what the prompt leaves; two are its start's
        ("encoder_decoder", None, 8),
    ],
)
def test_max_tokens_is_capped_to_the_room_left(family: str, context_length: int | None, room: int) -> None:
    assert prompts(family, context_length).max_tokens(6, 8) == room


TOOL: dict[str, Any] = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
TURN: dict[str, Any] = {"role": "user", "content": "a"}


def with_template(template: Contents) -> Prompts:
    return Prompts(ByteTokenizer(), template, family="decoder", context_length=None)


def test_a_demanded_call_is_begun_in_the_prompt_and_held_to_a_schema() -> None:
    made = with_template(Contents(reads_tools=True, tool_format=HERMES))
    asked = request(messages=[TURN], tools=[TOOL])
    assert bytes(made.ids_of(asked)) == b"fa"
    assert made.call_schema(asked) is None
    asked = request(messages=[TURN], tools=[TOOL], tool_choice="required")
    assert bytes(made.ids_of(asked)) == b"fa<tool_call>\n"
    assert json.loads(made.call_schema(asked) or "")["properties"]["name"] == {"const": "f"}
    calls = made.tool_calls(asked)
    assert calls is not None
    assert (calls.push('{"name": "f", "arguments": {}}'), len(calls.made)) == ("", 1)


def test_a_demanded_call_needs_no_form_that_is_known() -> None:
    made = with_template(Contents(reads_tools=True))
    with pytest.raises(Invalid) as caught:
        made.tool_calls(request(messages=[TURN], tools=[TOOL]))
    assert caught.value.reason is Reason.TOOL_FORMAT_UNKNOWN
    calls = made.tool_calls(request(messages=[TURN], tools=[TOOL], tool_choice="required"))
    assert calls is not None
    assert (calls.push('{"name": "f", "arguments": {}}'), len(calls.made)) == ("", 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [TOOL], "messages": [TURN]},
        {"messages": [TURN, {"role": "tool", "content": "b"}]},
        {"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]},
    ],
)
def test_a_template_without_tools_names_what_would_mend_it(fields: dict[str, Any]) -> None:
    made = with_template(Contents())
    check = made.tool_calls if "tools" in fields else made.ids_of
    with pytest.raises(Invalid, match=r"chat_template\.jinja that reads `tools`") as caught:
        check(request(**fields))
    assert caught.value.reason is Reason.TEMPLATE_WITHOUT_TOOLS
