"""A header is believed only when it agrees with itself and with the file's length."""

import contextlib
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockyard.errors import Failed, Reason
from dockyard.prepare.safetensors_header import read_header


def _file(header: Any, data_bytes: int) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(data_bytes)


def _read(content: bytes) -> list[str]:
    return [entry.name for entry in read_header(io.BytesIO(content), len(content), "w.safetensors")]


def test_tensors_come_in_the_order_of_their_bytes() -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "b": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [4, 12]},
        "a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]},
    }
    assert _read(_file(header, 12)) == ["a", "b"]


def test_no_tensor_at_all_is_sound() -> None:
    assert _read(_file({}, 0)) == []


@pytest.mark.parametrize(
    ("header", "data_bytes"),
    [
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, 4),  # two numbers in four bytes
        ({"a": {"dtype": "F33", "shape": [1], "data_offsets": [0, 4]}}, 4),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}}, 4),
        ({"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}, 4),
        ({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, 4),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}, 4),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, 8),  # a gap before
        ({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}, 4),
        (
            {
                "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},  # the same bytes twice
            },
            4,
        ),
        ({"a": {"dtype": "U8", "shape": [1] * 33, "data_offsets": [0, 1]}}, 1),
        ({"a": {"dtype": "U8", "shape": [99] * 200_000, "data_offsets": [0, 1]}}, 1),  # hours, if it were multiplied
        ({"a": {"dtype": "U8", "shape": [10**4000], "data_offsets": [0, 1]}}, 1),
        ({"a": []}, 0),
        ({"a": None}, 0),
        ([], 0),
        (b"\xff", 0),
        (b"[" * 200_000, 0),
    ],
)
def test_an_unsound_header_is_refused(header: Any, data_bytes: int) -> None:
    with pytest.raises(Failed) as caught:
        _read(_file(header, data_bytes))
    assert caught.value.reason is Reason.WEIGHTS_UNREADABLE


def test_a_header_longer_than_the_file_is_not_read() -> None:
    with pytest.raises(Failed, match="claims"):
        _read((1 << 62).to_bytes(8, "little") + b"{}")


@given(st.binary(max_size=200))
def test_any_bytes_give_tensors_or_a_refusal(content: bytes) -> None:
    with contextlib.suppress(Failed):  # any other exception fails the test
        _read(content)
