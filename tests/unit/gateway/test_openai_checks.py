"""Every field of both bodies: each bound, just inside and just outside, wrong types, null, what no engine can do."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from tests.unit.gateway.test_admission import ROUTE

from dockyard.errors import Invalid, Reason
from dockyard.gateway.openai_checks import chat_generation, text_generations
from dockyard.gateway.openai_wire import BodyDecoder, ChatCompletionRequest, CompletionRequest, named_model
from dockyard.protocols.generation import GenerateRequest

CHAT = BodyDecoder(ChatCompletionRequest)
TEXT = BodyDecoder(CompletionRequest)
HELLO: dict[str, Any] = {"role": "user", "content": "hello"}


def chat(route: Any = ROUTE, **fields: Any) -> GenerateRequest:
    body = msgspec.json.encode({"model": "Ship", "messages": [HELLO], **fields})
    return chat_generation(CHAT.decode(body), route, "id")[0]


def text(**fields: Any) -> list[GenerateRequest]:
    body = msgspec.json.encode({"model": "Ship", "prompt": "hello", **fields})
    return text_generations(TEXT.decode(body), ROUTE, "id")


INSIDE: list[tuple[str, Any, str, Any]] = [
    ("temperature", 0, "temperature", 0.0),
    ("temperature", 2, "temperature", 2.0),
    ("temperature", 0.7, "temperature", 0.7),
    ("temperature", None, "temperature", 1),
    ("top_p", 0, "top_p", 0.0),
    ("top_p", 1, "top_p", 1.0),
    ("top_k", 1, "top_k", 1),
    ("top_k", 100, "top_k", 100),
    ("max_tokens", 0, "max_tokens", 0),
    ("max_tokens", 16, "max_tokens", 16),
    ("max_completion_tokens", 3, "max_tokens", 3),
    ("stop", "x", "stop", ["x"]),
    ("stop", [], "stop", []),
    ("stop", ["x" * 256] * 16, "stop", ["x" * 256] * 16),
    ("seed", -(2**63), "seed", -(2**63)),
    ("seed", 2**63 - 1, "seed", 2**63 - 1),
]


@pytest.mark.parametrize(("field", "value", "becomes", "expected"), INSIDE)
def test_values_inside_their_bounds(field: str, value: Any, becomes: str, expected: Any) -> None:
    assert getattr(chat(**{field: value}), becomes) == expected
    assert getattr(text(**{field: value})[0], becomes) == expected


OUTSIDE: list[tuple[str, Any, Reason, str]] = [
    ("temperature", -0.01, Reason.OUT_OF_RANGE, "temperature must be between 0 and 2, got -0.01"),
    ("temperature", 2.01, Reason.OUT_OF_RANGE, "temperature must be between 0 and 2, got 2.01"),
    ("temperature", 3, Reason.OUT_OF_RANGE, "temperature must be between 0 and 2, got 3"),
    ("temperature", "1", Reason.WRONG_TYPE, "temperature: expected float | null, got str"),
    ("temperature", True, Reason.WRONG_TYPE, "temperature: expected float | null, got bool"),
    ("top_p", -0.1, Reason.OUT_OF_RANGE, "top_p must be between 0 and 1, got -0.1"),
    ("top_p", 1.1, Reason.OUT_OF_RANGE, "top_p must be between 0 and 1, got 1.1"),
    ("top_k", 0, Reason.OUT_OF_RANGE, "top_k must be between 1 and 100, got 0"),
    ("top_k", 101, Reason.OUT_OF_RANGE, "top_k must be between 1 and 100, got 101"),
    ("top_k", 1.5, Reason.WRONG_TYPE, "top_k: expected int | null, got float"),
    ("top_k", 10**40, Reason.OUT_OF_RANGE, "top_k must be between 1 and 100, got a very large number"),
    ("max_tokens", -1, Reason.OUT_OF_RANGE, "max_tokens must be between 0 and 16, got -1"),
    ("max_tokens", 17, Reason.OUT_OF_RANGE, "; 16 is maxTokens of the deployment 'Ship'"),
    ("max_completion_tokens", 17, Reason.OUT_OF_RANGE, "; 16 is maxTokens of the deployment 'Ship'"),
    ("stop", "", Reason.OUT_OF_RANGE, "stop must have 1 to 256 characters, got 0"),
    ("stop", "x" * 257, Reason.OUT_OF_RANGE, "stop must have 1 to 256 characters, got 257"),
    ("stop", ["x"] * 17, Reason.OUT_OF_RANGE, "stop must hold at most 16 sequences, got 17"),
    ("stop", 1, Reason.WRONG_TYPE, "stop: expected str | array | null, got int"),
    ("seed", 2**63, Reason.OUT_OF_RANGE, "seed must be between"),
    ("n", 17, Reason.OUT_OF_RANGE, "n must be between 1 and 16, got 17"),
    ("n", 0, Reason.OUT_OF_RANGE, "n must be between 1 and 16, got 0"),
    ("stream", "yes", Reason.WRONG_TYPE, "stream: expected bool | null, got str"),
    ("stream_options", {"include_usage": True}, Reason.BAD_FORMAT, "only when stream is true"),
    ("model", 1, Reason.WRONG_TYPE, "model: expected str, got int"),
]


@pytest.mark.parametrize(("field", "value", "reason", "says"), OUTSIDE)
@pytest.mark.parametrize("ask", [chat, text])
def test_values_outside_their_bounds(ask: Any, field: str, value: Any, reason: Reason, says: str) -> None:
    with pytest.raises(Invalid) as refused:
        ask(**{field: value})
    problem = refused.value.problems[0]
    assert (problem.reason, problem.field) == (reason, field)
    assert says in problem.msg


NEUTRAL: list[tuple[Any, str, list[Any], list[Any]]] = [
    (chat, "logit_bias", [None, {}], [{"50256": -100}]),
    (chat, "presence_penalty", [None, 0, 0.0], [0.5, True]),
    (chat, "frequency_penalty", [None, 0], [-1]),
    (chat, "repetition_penalty", [None, 1, 1.0], [1.1, True]),
    (chat, "min_p", [None, 0], [0.1]),
    (chat, "logprobs", [None, False], [True]),
    (chat, "response_format", [None, {"type": "text"}], [{"type": "json_object"}]),
    (chat, "functions", [None, []], [[{"name": "f"}]]),
    (chat, "function_call", [None, "none", "auto"], [{"name": "f"}]),
    (chat, "modalities", [None, ["text"]], [["text", "audio"]]),
    (chat, "audio", [None], [{"voice": "alloy"}]),
    (chat, "prediction", [None], [{"type": "content"}]),
    (chat, "reasoning_effort", [None, "none"], ["high"]),
    (chat, "verbosity", [None, "medium"], ["low"]),
    (chat, "web_search_options", [None], [{}]),
    (text, "echo", [None, False], [True]),
    (text, "best_of", [None, 1], [2]),
    (text, "suffix", [None, ""], ["end"]),
    (text, "logprobs", [None, False], [0, 1]),
]


@pytest.mark.parametrize(("ask", "field", "fine", "refused"), NEUTRAL)
def test_what_no_engine_can_do_is_refused_by_name(ask: Any, field: str, fine: list[Any], refused: list[Any]) -> None:
    for value in fine:
        ask(**{field: value})
    for value in refused:
        with pytest.raises(Invalid) as error:
            ask(**{field: value})
        assert error.value.reason is Reason.ENGINE_CANNOT
        assert error.value.problems[0].field == field
        assert f"the engine echo of 'Ship' cannot do {field}" in error.value.message


@pytest.mark.parametrize("field", ["user", "metadata", "store", "service_tier", "safety_identifier"])
def test_what_changes_nothing_is_accepted(field: str) -> None:
    assert chat(**{field: {"any": ["thing"]}})


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"temprature": 1}, "unrecognized field 'temprature'; did you mean 'temperature'?"),
        ({"zzz": 1}, "unrecognized field 'zzz'"),
        (
            {"messages": [{**HELLO, "contents": 1}]},
            "unrecognized field 'messages[0].contents'; did you mean 'content'?",
        ),
        ({"stream": True, "stream_options": {"include_use": 1}}, "did you mean 'include_usage'?"),
    ],
)
def test_unknown_fields_are_told_with_the_nearest_known_one(body: dict[str, Any], says: str) -> None:
    with pytest.raises(Invalid, match="unrecognized") as refused:
        chat(**body)
    assert says in refused.value.message


MESSAGES: list[tuple[Any, Reason, str]] = [
    ([], Reason.OUT_OF_RANGE, "messages"),
    ("hello", Reason.WRONG_TYPE, "messages"),
    ([{"role": "user"}], Reason.MISSING_FIELD, "messages[0].content"),
    ([{"content": "x"}], Reason.MISSING_FIELD, "messages[0].role"),
    ([{"role": "pirate", "content": "x"}], Reason.NOT_IN_ENUM, "messages[0].role"),
    ([{"role": "function", "content": "x"}], Reason.ENGINE_CANNOT, "messages[0].role"),
    ([HELLO, {"role": "user", "content": 7}], Reason.WRONG_TYPE, "messages[1].content"),
    (
        [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
        Reason.ENGINE_CANNOT,
        "messages[0].content[0]",
    ),
    ([{"role": "user", "content": [{"type": "text"}]}], Reason.MISSING_FIELD, "messages[0].content[0].text"),
]


@pytest.mark.parametrize(("messages", "reason", "field"), MESSAGES)
def test_messages_that_are_wrong(messages: Any, reason: Reason, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        chat(messages=messages)
    assert (refused.value.problems[0].reason, refused.value.problems[0].field) == (reason, field)


def test_a_reply_may_be_sent_back_as_it_came() -> None:
    answer = {
        "role": "assistant",
        "content": "hi",
        "refusal": None,
        "annotations": [],
        "tool_calls": None,
        "audio": None,
    }
    messages = [HELLO, answer, {"role": "user", "content": [], "name": "jo"}]
    assert chat(messages=messages).messages == [
        HELLO,
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": ""},
    ]


PROMPTS: list[tuple[Any, Reason]] = [
    ([], Reason.OUT_OF_RANGE),
    ([[]], Reason.OUT_OF_RANGE),
    (["a", 1], Reason.WRONG_TYPE),
    ([1, [1]], Reason.WRONG_TYPE),
    ([True], Reason.WRONG_TYPE),
    (None, Reason.WRONG_TYPE),
    ({}, Reason.WRONG_TYPE),
    ([-1], Reason.OUT_OF_RANGE),
    ([[2**31]], Reason.OUT_OF_RANGE),
    (["a"] * 65, Reason.OUT_OF_RANGE),
]


@pytest.mark.parametrize(("prompt", "reason"), PROMPTS)
def test_prompts_that_are_wrong(prompt: Any, reason: Reason) -> None:
    with pytest.raises(Invalid) as refused:
        text(prompt=prompt)
    assert refused.value.problems[0].reason is reason
    assert (refused.value.problems[0].field or "").startswith("prompt")


def test_prompts_of_all_forms() -> None:
    assert [one.prompt for one in text(prompt="a")] == ["a"]
    assert [one.prompt for one in text(prompt=["a", "b"])] == ["a", "b"]
    assert [one.prompt_ids for one in text(prompt=[1, 2])] == [[1, 2]]
    assert [one.prompt_ids for one in text(prompt=[[1, 2], [3]])] == [[1, 2], [3]]
    assert len({one.id for one in text(prompt=["a", "b"])}) == 2


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(Invalid) as refused:
        chat(temperature=9, top_k=0, tools=[{"type": "function"}], max_tokens=3, max_completion_tokens=4)
    assert [problem.field for problem in refused.value.problems] == [
        "temperature",
        "top_k",
        "max_completion_tokens",
        "tools[0].function",
    ]


def test_rows_of_one_prompt_have_ids_and_seeds_of_their_own() -> None:
    rows = text(prompt=["a", "b"], n=2, seed=2**63 - 1)
    assert [(row.prompt, row.seed) for row in rows] == [
        *(("a", 2**63 - 1), ("a", -(2**63))),
        *(("b", 2**63 - 1), ("b", -(2**63))),
    ]
    assert len({row.id for row in rows}) == 4
    assert [row.seed for row in text(n=3)] == [None] * 3
    assert len(text(n=2, best_of=2)) == 2
    assert len(text(n=16)) == 16


@pytest.mark.parametrize(
    ("fields", "reason", "field", "says"),
    [
        ({"prompt": ["a"] * 5, "n": 13}, Reason.OUT_OF_RANGE, "prompt", "must be at most 64, got 65"),
        ({"n": 3, "best_of": 2}, Reason.OUT_OF_RANGE, "best_of", "best_of must be at least n, got 2 for n 3"),
        ({"best_of": 17}, Reason.OUT_OF_RANGE, "best_of", "best_of must be between 1 and 16, got 17"),
        ({"best_of": 2, "stream": True}, Reason.BAD_FORMAT, "best_of", "cannot be streamed"),
        ({"best_of": 2}, Reason.ENGINE_CANNOT, "best_of", "the engine echo of 'Ship' cannot do best_of above n"),
        ({"best_of": True}, Reason.WRONG_TYPE, "best_of", "expected int | null, got bool"),
    ],
)
def test_more_rows_than_can_be(fields: dict[str, Any], reason: Reason, field: str, says: str) -> None:
    with pytest.raises(Invalid) as refused:
        text(**fields)
    problem = refused.value.problems[0]
    assert (problem.reason, problem.field) == (reason, field)
    assert says in problem.msg


def test_a_deployment_that_produces_nothing() -> None:
    silent = replace(ROUTE, hyper=replace(ROUTE.hyper, max_tokens=0))
    assert chat(silent).max_tokens == 0
    with pytest.raises(Invalid):
        chat(silent, max_tokens=1)


@pytest.mark.parametrize(
    ("body", "model"),
    [(b'{"model": "x", "nonsense": 1}', "x"), (b'{"model": 1}', None), (b"{", None), (b'{"model": "\xff"}', None)],
)
def test_the_model_is_found_in_a_body_that_is_wrong(body: bytes, model: str | None) -> None:
    assert named_model(body) == model
