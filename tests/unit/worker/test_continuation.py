from hypothesis import given
from hypothesis import strategies as st

from dockyard.worker.continuation import Continuation
from dockyard.worker.tokenizer import ByteTokenizer

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
