"""A replica's log stays short and is read from its end."""

import os
from pathlib import Path

import pytest

from dockyard.fleets.local import log


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return log.path_of(tmp_path, "rp-1")


def test_the_tail_is_the_last_lines_oldest_first(path: Path) -> None:
    path.write_text("".join(f"line {number}\n" for number in range(1000)))

    assert log.tail(path, 3) == ("line 997", "line 998", "line 999")


def test_long_lines_are_read_whole(path: Path) -> None:
    lines = [letter * 5000 for letter in "abcd"]
    path.write_text("\n".join(lines))

    assert log.tail(path, 2) == ("c" * 5000, "d" * 5000)


@pytest.mark.parametrize(("content", "lines", "tail"), [(b"", 5, ()), (b"a\nb", 0, ()), (b"\xff\n", 5, ("\ufffd",))])
def test_edges(path: Path, content: bytes, lines: int, tail: tuple[str, ...]) -> None:
    path.write_bytes(content)

    assert log.tail(path, lines) == tail


def test_no_file_has_no_lines(path: Path) -> None:
    log.shorten(path)
    assert log.tail(path, 5) == ()


def test_a_file_within_its_bound_is_left_alone(path: Path) -> None:
    path.write_text("0123\n5678\n")

    log.shorten(path, max_bytes=10)

    assert path.read_text() == "0123\n5678\n"


def test_a_larger_file_keeps_its_last_half_from_the_start_of_a_line(path: Path) -> None:
    writer = log.open_for_append(path)
    try:
        os.write(writer, b"first\nsecond\nthird\nfourth\n")

        log.shorten(path, max_bytes=20)
        os.write(writer, b"fifth\n")
    finally:
        os.close(writer)

    assert path.read_text() == "fourth\nfifth\n"
