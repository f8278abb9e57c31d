"""The short soak: bursts of load, a redeploy, a rollback, `kill -9` of two replicas and of the server; none is lost.

`python -m bench.soak` is the long one, and also tells whether anything leaks. That both would notice is tested, too.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from bench.outcome import Outcome
from bench.soak import make_plan, soak
from bench.soak_answers import Ask, Expected, StreamCheck, Wrong, check_whole
from bench.soak_judgement import judge

BODY = {"model": "echo", "prompt": "abc", "stream": True, "stream_options": {"include_usage": True}}
ASK = Ask(1, BODY, (Expected("abc", "stop"),), 3, 3)


async def test_a_short_soak_loses_nothing_and_leaves_nothing_behind(tmp_path: Path) -> None:
    outcome = Outcome("soak", "Soak", "")
    judge(outcome, await soak(make_plan(quick=True), tmp_path))
    missed = [f"{target.text}: {target.found}" for target in outcome.targets if target.met is False]
    assert not missed, "\n".join((*missed, *outcome.remarks))


def event(text: str = "", finish: str | None = None) -> bytes:
    return sse({"id": "c", "choices": [{"index": 0, "text": text, "finish_reason": finish}], "usage": None})


def sse(told: object) -> bytes:
    return b"data: " + json.dumps(told).encode() + b"\n\n"


END = event("", "stop")
USAGE = sse({"id": "c", "choices": [], "usage": ASK.usage})
DONE = b"data: [DONE]\n\n"


def test_a_right_stream_passes_however_it_is_cut_into_chunks() -> None:
    take_all([bytes([byte]) for byte in event("a") + event("bc") + END + USAGE + DONE])


def take_all(chunks: Sequence[bytes]) -> None:
    check = StreamCheck(ASK)
    for chunk in chunks:
        check.feed(chunk)
    check.end()


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([event("ab"), event("bc"), END, USAGE, DONE], id="a token twice"),
        pytest.param([event("ac"), END, USAGE, DONE], id="a token missing"),
        pytest.param([event("ab"), END, USAGE, DONE], id="the last token missing"),
        pytest.param([event("abc"), event("", "length"), USAGE, DONE], id="the wrong finish_reason"),
        pytest.param([event("abc"), END, END, USAGE, DONE], id="two finish_reasons"),
        pytest.param([event("abc"), USAGE, DONE], id="no finish_reason"),
        pytest.param([event("abc"), END, DONE], id="no usage"),
        pytest.param([event("abc"), END, USAGE, DONE, DONE], id="[DONE] twice"),
        pytest.param([event("abc"), END, USAGE], id="no [DONE]"),
        pytest.param([event("abc"), END, USAGE, DONE[:-3]], id="half an event"),
        pytest.param([event("ab"), sse({"error": {"message": "the replica broke"}})], id="an error"),
    ],
)
def test_a_wrong_stream_is_noticed(chunks: Sequence[bytes]) -> None:
    with pytest.raises(Wrong):
        take_all(chunks)


@pytest.mark.parametrize(
    ("text", "finish", "completion_tokens"), [("ab", "stop", 3), ("abc", "length", 3), ("abc", "stop", 4)]
)
def test_a_wrong_answer_is_noticed(text: str, finish: str, completion_tokens: int) -> None:
    def reply(text: str, finish: str, completion_tokens: int) -> bytes:
        usage = {**ASK.usage, "completion_tokens": completion_tokens}
        choice = {"index": 0, "text": text, "finish_reason": finish}
        return json.dumps({"object": "text_completion", "model": "echo", "choices": [choice], "usage": usage}).encode()

    check_whole(ASK, reply("abc", "stop", 3))
    with pytest.raises(Wrong):
        check_whole(ASK, reply(text, finish, completion_tokens))
