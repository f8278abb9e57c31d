from typing import Any

import pytest

from dockyard.errors import Invalid, Reason
from dockyard.protocols.generation import GenerateRequest
from dockyard.worker.prompt import Prompts
from dockyard.worker.tokenizer import ByteTokenizer, FileTokenizer


def prompts(family: str = "decoder", context_length: int | None = 10, *, chat: bool = False) -> Prompts:
    def render(messages: list[dict[str, Any]]) -> str:
        return "".join(message["content"] for message in messages)

    return Prompts(ByteTokenizer(), render if chat else None, family=family, context_length=context_length)


def request(**fields: Any) -> GenerateRequest:
    return GenerateRequest(id="1", **fields)


def test_text_ids_and_messages() -> None:
    assert prompts().ids_of(request(prompt="ab")) == [97, 98]
    assert prompts().ids_of(request(prompt_ids=[97, 98])) == [97, 98]
    assert prompts(chat=True).ids_of(request(messages=[{"role": "user", "content": "ab"}])) == [97, 98]


def test_special_tokens_go_around_a_text_and_not_around_a_rendered_chat(sentence_piece: FileTokenizer) -> None:
    made = Prompts(sentence_piece, lambda _: "a", family="decoder", context_length=None)
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
