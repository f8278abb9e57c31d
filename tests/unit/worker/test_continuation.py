from hypothesis import given
from hypothesis import strategies as st

from dockyard.worker.continuation import Continuation
from dockyard.worker.tokenizer import ByteTokenizer
from dockyard.worker.tool_calls import ToolCalls
from dockyard.worker.tool_calls_formats import HERMES

EOS = 256


def continuation(stop: tuple[str, ...] = (), max_tokens: int = 100) -> Continuation:
    return Continuation(ByteTokenizer(), stop=stop, max_tokens=max_tokens, eos_token_ids=frozenset({EOS}))


def test_the_end_of_sequence_is_a_stop_and_does_not_count() -> None:
    made = continuation()
    assert made.feed([*b"ab", EOS, *b"dropped"]) == ("ab", [*b"ab"])
    assert (made.finish, made.completion_tokens) == ("stop", 2)


def test_the_limit_is_a_length() -> None:
    made = continuation(max_tokens=2)
    assert made.feed(b"abc") == ("ab", [*b"ab"])
    assert (made.finish, made.completion_tokens) == ("length", 2)


def test_no_token_at_all_is_a_length() -> None:
    assert continuation(max_tokens=0).finish == "length"


def test_a_stop_sequence_counts_its_tokens_and_shows_none_of_its_text() -> None:
    made = continuation(stop=("\n\n",))
    assert made.feed(b"ab\n") == ("ab", [*b"ab\n"])
    assert made.feed(b"\nc") == ("", [*b"\n"])
    assert (made.finish, made.completion_tokens) == ("stop", 4)


def test_a_stop_sequence_in_the_last_token_allowed_is_a_stop() -> None:
    made = continuation(stop=("b",), max_tokens=2)
    assert made.feed(b"ab")[0] == "a"
    assert made.finish == "stop"


def test_text_held_back_goes_out_with_the_id_that_ends_it() -> None:
    made = continuation(stop=("bcd",))
    assert made.feed(b"abc") == ("a", [*b"abc"])
    assert made.feed([EOS]) == ("bc", [EOS])
    assert made.finish == "stop"


def test_text_held_back_goes_out_when_the_engine_ends_early() -> None:
    made = continuation(stop=("bc",))
    made.feed(b"ab")
    assert made.end() == "b"
    assert made.finish == "length"


@given(
    text=st.text(alphabet="abé中", max_size=16),
    stop=st.lists(st.text(alphabet="abé", min_size=1, max_size=3), max_size=2),
    max_tokens=st.integers(1, 30),
    data=st.data(),
)
def test_a_resumed_one_continues_without_a_seam(
    text: str, stop: list[str], max_tokens: int, data: st.DataObject
) -> None:
    """Cut after any event: text and ids sent before and after are those of an undisturbed one."""
    ids = [*text.encode(), EOS]
    whole = continuation(tuple(stop), max_tokens)
    sent = [whole.feed([token]) for token in ids]
    cut = data.draw(st.integers(0, len(ids)))
    known = [token for _, taken in sent[:cut] for token in taken]

    resumed = continuation(tuple(stop), max_tokens)
    resumed.feed(known)
    rest = resumed.feed(ids[len(known) :]) if resumed.finish is None else ("", [])

    assert rest[0] == "".join(piece for piece, _ in sent[cut:])
    assert (resumed.finish, resumed.completion_tokens) == (whole.finish, whole.completion_tokens)


CALL = '<tool_call>{"name": "add", "arguments": {"a": "é中"}}</tool_call>'
MARK = 300  # a special token of the vocabulary


def with_tools(stop: tuple[str, ...] = (), max_tokens: int = 1000, most: int | None = None) -> Continuation:
    return Continuation(
        ByteTokenizer(),
        stop=stop,
        max_tokens=max_tokens,
        eos_token_ids=frozenset({EOS}),
        tools=ToolCalls(HERMES, "id", {"add"}, most=most),
        marks={MARK: "<tool_call>"},
    )


def test_a_call_is_no_text_and_the_end_says_so() -> None:
    made = with_tools()
    assert made.feed(f"so {CALL}".encode())[0] == "so "
    assert [(call.name, call.arguments) for call in made.take_calls()] == [("add", '{"a": "é中"}')]
    assert made.take_calls() == []
    assert made.feed([EOS]) == ("", [])
    assert made.finish == "tool_calls"


def test_a_special_token_may_open_a_call() -> None:
    made = with_tools()
    assert made.feed([*b"a\xc3", MARK, *CALL.removeprefix("<tool_call>").encode(), EOS])[0] == "a"
    assert len(made.take_calls()) == 1


def test_what_is_held_back_goes_out_with_the_id_that_ends_it() -> None:
    made = with_tools()
    said = b"so <tool_call>{"
    assert made.feed(said) == ("so ", [*said])
    assert made.feed([EOS]) == ("<tool_call>{", [EOS])
    assert made.finish == "stop"


def test_one_call_may_be_the_end() -> None:
    made = with_tools(most=1)
    made.feed(CALL.encode())
    assert made.finish == "tool_calls"
    assert made.completion_tokens == len(CALL.encode()) - len("</tool_call>")


def test_a_call_that_the_limit_cuts_is_text() -> None:
    made = with_tools(max_tokens=20)
    assert made.feed(CALL.encode())[0] == CALL[:20]
    assert made.finish == "length"


@given(
    parts=st.lists(st.sampled_from([CALL, "<tool_call>", "{", "}", "a", " ", "\n", "é"]), max_size=5),
    stop=st.lists(st.sampled_from(["</", "é", "\n"]), max_size=1),
    max_tokens=st.integers(1, 150),
    most=st.sampled_from([None, 1]),
    data=st.data(),
)
def test_one_with_tools_resumes_without_a_seam(
    parts: list[str], stop: list[str], max_tokens: int, most: int | None, data: st.DataObject
) -> None:
    """Text and calls before and after a cut at any event are those of an undisturbed one."""
    ids = [*"".join(parts).encode(), EOS]
    whole = with_tools(tuple(stop), max_tokens, most)
    sent = [(*whole.feed([token]), whole.take_calls()) for token in ids]
    cut = data.draw(st.integers(0, len(ids)))
    known = [token for _, taken, _ in sent[:cut] for token in taken]

    resumed = with_tools(tuple(stop), max_tokens, most)
    resumed.feed(known)
    resumed.take_calls()
    rest = resumed.feed(ids[len(known) :])[0] if resumed.finish is None else ""

    assert rest == "".join(text for text, _, _ in sent[cut:])
    assert resumed.take_calls() == [call for _, _, calls in sent[cut:] for call in calls]
    assert (resumed.finish, resumed.completion_tokens) == (whole.finish, whole.completion_tokens)
    assert all(taken for text, taken, calls in sent if text or calls)
