"""Rows that join a decoder's batch, on a tiny random model: cancelled, failing, and LongRoPE's frequencies."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import Phi3Config, Phi3ForCausalLM

from dockyard.engines.base import Generation, Row, Sampling
from dockyard.engines.continuous import Seat
from dockyard.engines.joining import JoiningDecoder, settle_long_rope
from dockyard.engines.outbox import Outbox
from dockyard.errors import Failed

TRAINED, LONGEST = 64, 256
HALF = 4  # frequencies of a head


@pytest.fixture(scope="module")
def model() -> Any:
    """Phi-3 as it comes: its texts up to 64 tokens have other frequencies than those that are longer."""
    torch.manual_seed(3)
    config = Phi3Config(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=LONGEST,
        original_max_position_embeddings=TRAINED,
        pad_token_id=0,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10_000.0,
            "short_factor": [1.0] * HALF,
            "long_factor": [1.0, 2.0, 5.0, 9.0],
            "original_max_position_embeddings": TRAINED,
        },
    )
    made = Phi3ForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
    return made


class Rows:
    """Rows of a decoder, and what they have said so far."""

    def __init__(self, model: Any) -> None:
        self.outbox = Outbox(frozenset())
        self.decoder = JoiningDecoder(model, capacity=4, never=())

    def join(self, *rows: tuple[int, int]) -> list[tuple[Seat, Generation]]:
        """Each a prompt of so many tokens, and how many are to follow."""
        made = [Generation(Row(prompt_of(length), new, Sampling(0)), lambda _: None) for length, new in rows]
        seats = [Seat(generation, self.outbox, extra=False) for generation in made]
        self.decoder.join(seats)
        return list(zip(seats, made, strict=True))

    def run(self, seats: Sequence[tuple[Seat, Generation]]) -> list[list[int]]:
        """Until these have ended."""
        while not all(seat.ended for seat, _ in seats):
            self.decoder.step()
        self.outbox.deliver()
        return [asyncio.run(ids(generation)) for _, generation in seats]


def text_of(model: Any, row: tuple[int, int]) -> list[int]:
    """Alone."""
    made = Rows(model)
    return made.run(made.join(row))[0]


async def ids(generation: Generation) -> list[int]:
    return [token async for tokens in generation for token in tokens]


def prompt_of(length: int) -> list[int]:
    return [(7 * i * i + 31 * i + length) % 96 + 1 for i in range(length)]


def test_a_long_context_has_the_long_frequencies_for_every_text(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone, in company, in pieces, and across the length that the model was first trained on."""
    settle_long_rope(model, LONGEST)
    rows = (100, 6), (20, 6), (60, 12)
    alone = [text_of(model, row) for row in rows]
    made = Rows(model)
    assert made.run(made.join(*rows)) == alone
    monkeypatch.setattr("dockyard.engines.joining.CHUNK_ALONE", 16)
    monkeypatch.setattr("dockyard.engines.joining.CHUNK", {"cpu": 7})
    made = Rows(model)
    first = made.join(rows[2])
    for _ in range(6):
        made.decoder.step()
    assert made.run([*made.join(*rows[:2]), *first]) == alone
    with torch.inference_mode():
        whole = model.generate(
            torch.tensor([prompt_of(100)]), attention_mask=torch.ones(1, 100), max_new_tokens=6, do_sample=False
        )
    assert whole[0, 100:].tolist() == alone[0]


def test_a_first_token_waits_for_nobody_elses_prompt(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Rows(model)
    monkeypatch.setattr(made.outbox, "call_loop", lambda callback: callback())
    events: list[str] = []
    forward = model.forward

    def computed(**inputs: Any) -> Any:
        events.append(f"{inputs['input_ids'].shape[1]} columns")
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", computed)
    monkeypatch.setattr(
        Generation, "deliver", lambda self, ids, _: events.append(f"{len(self.row.prompt)}: {len(ids)}")
    )
    made.join((6, 3), (90, 3))
    made.decoder.step()
    assert events == ["6 columns", "6: 1", "90 columns", "90: 1", "1 columns"]


def test_whoever_is_cancelled_while_prompts_are_read_leaves_at_the_next_step(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dockyard.engines.joining.CHUNK_ALONE", 8)
    expected = [text_of(model, (50, 4))]
    made = Rows(model)
    (gone_seat, gone), other = made.join((52, 4), (50, 4))
    made.decoder.step()
    gone.cancel()
    made.decoder.step()
    assert (gone_seat.ended, other[0].ended) == (True, False)
    assert made.run([other]) == expected


def test_a_prompt_for_which_there_is_no_memory_ends_alone(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs goes on, and so does who comes after."""
    expected = [text_of(model, row) for row in ((10, 9), (30, 3))]
    made = Rows(model)
    runs = made.join((10, 9))
    made.decoder.step()
    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "new_empty", out_of_memory)
        (seat, failed), *_ = made.join((90, 5))
        made.decoder.step()
    assert seat.ended
    made.outbox.deliver()
    with pytest.raises(Failed, match="reading the prompt"):
        asyncio.run(ids(failed))
    assert made.run([*runs, *made.join((30, 3))]) == expected


def out_of_memory(*_: Any) -> torch.Tensor:
    raise MemoryError
