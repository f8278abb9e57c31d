from hypothesis import example, given
from hypothesis import strategies as st

from dockyard.worker.stop_sequences import StopSequences

LETTERS = st.text(alphabet="abc", max_size=12)
STOPS = st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=3)


def cut_by_definition(text: str, stops: list[str]) -> tuple[str, bool]:
    """Character by character: the first place where a stop sequence is complete, the longest one there."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))], True
    return text, False


@given(pieces=st.lists(LETTERS, max_size=8), stops=STOPS)
@example(pieces=["a", "ab"], stops=["aab"])
@example(pieces=["abcd"], stops=["abcd", "c"])
def test_the_cut_does_not_depend_on_the_pieces(pieces: list[str], stops: list[str]) -> None:
    finder = StopSequences(stops)
    out = "".join([*(finder.push(piece) for piece in pieces), finder.flush()])
    assert (out, finder.hit) == cut_by_definition("".join(pieces), stops)


@given(pieces=st.lists(LETTERS, max_size=8), stops=STOPS)
def test_what_is_out_is_never_taken_back_and_no_more_is_held_than_needed(pieces: list[str], stops: list[str]) -> None:
    finder = StopSequences(stops)
    seen = out = ""
    for piece in pieces:
        seen += piece
        out += finder.push(piece)
        if finder.hit:
            break
        held = seen[len(out) :]
        assert seen.startswith(out)
        assert held == "" or any(stop.startswith(held) for stop in stops)


def test_nothing_follows_a_hit() -> None:
    finder = StopSequences(["x"])
    assert finder.push("ax") == "a"
    assert finder.push("b") == ""
    assert finder.flush() == ""
