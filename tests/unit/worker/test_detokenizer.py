import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dockyard.worker.detokenizer import Detokenizer
from dockyard.worker.tokenizer import ByteTokenizer, FileTokenizer, Tokenizer

HALF = "\ufffd"
same_tokenizer = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def pieces(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer)
    return [*(detokenizer.push(token) for token in ids), detokenizer.flush()]


@given(text=st.text(max_size=30))
@example(text=" the  théâtre 中文 🚢\n")
def test_bytes_come_out_as_whole_characters(text: str) -> None:
    tokenizer = ByteTokenizer()
    parts = pieces(tokenizer, tokenizer.encode(text, special=False))
    assert "".join(parts) == text
    assert all(HALF not in part for part in parts) or HALF in text


@same_tokenizer
@given(ids=st.lists(st.integers(0, 260), max_size=30))
def test_any_ids_give_what_decoding_them_at_once_gives(byte_level: FileTokenizer, ids: list[int]) -> None:
    assert "".join(pieces(byte_level, ids)) == byte_level.decode(ids).rstrip(HALF)


@same_tokenizer
@given(text=st.text(alphabet=st.sampled_from("abche  é中🚢\n"), max_size=30))
@example(text=" the  theatre")
@example(text="中文 the")
def test_sentence_piece_keeps_its_spaces(sentence_piece: FileTokenizer, text: str) -> None:
    ids = sentence_piece.encode(text, special=True)
    parts = pieces(sentence_piece, ids)
    assert "".join(parts) == sentence_piece.decode(ids)
    assert all(HALF not in part for part in parts)


@same_tokenizer
@given(text=st.text(alphabet=st.sampled_from("abche  é中🚢"), max_size=20), data=st.data())
def test_a_resumed_one_goes_on_exactly(sentence_piece: FileTokenizer, text: str, data: st.DataObject) -> None:
    ids = sentence_piece.encode(text, special=True)
    cut = data.draw(st.integers(0, len(ids)))
    undisturbed = pieces(sentence_piece, ids)
    resumed = Detokenizer(sentence_piece)
    for token in ids[:cut]:
        resumed.push(token)
    assert [*(resumed.push(token) for token in ids[cut:]), resumed.flush()] == undisturbed[cut:]


def test_a_special_token_in_between_leaves_no_trace(sentence_piece: FileTokenizer) -> None:
    a, *_ = sentence_piece.encode("a", special=False)
    eos = sentence_piece.encode("", special=True)[-1]
    assert pieces(sentence_piece, [a, eos, a]) == ["a", "", " a", ""]


def test_half_a_character_at_the_end_is_left_out() -> None:
    assert pieces(ByteTokenizer(), list("aé".encode())[:2]) == ["a", "", ""]


def test_truncation_of_the_file_is_taken_off(byte_level: FileTokenizer) -> None:
    assert byte_level.decode(byte_level.encode("a long text", special=True)) == "a long text"


@pytest.mark.parametrize("special", [True, False])
def test_special_tokens_are_added_when_asked_for(sentence_piece: FileTokenizer, special: bool) -> None:
    eos = sentence_piece.encode("", special=True)[-1]
    assert (sentence_piece.encode("a", special=special)[-1] == eos) is special
