"""How values are written for people and for pipes."""

import io
from typing import Any

import pytest

from dockyard.cli.output import Output


def printed(document: dict[str, Any], as_json: bool = False) -> str:
    out = io.StringIO()
    Output(as_json, out, io.StringIO()).record(document)
    return out.getvalue()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        ("", "-"),
        ([], "-"),
        ({}, "{}"),
        (True, "yes"),
        (0, "0"),
        (0.5, "0.5"),
        (1_700_000_000.0, "1.7e+09"),
        (["a", 1], "a, 1"),
        ([{"a": 1}], '{"a": 1}'),
    ],
)
def test_a_value_in_a_line(value: object, text: str) -> None:
    assert printed({"x": value}) == f"x\t{text}\n"


def test_nested_objects_are_flattened() -> None:
    assert printed({"a": {"b": {"c": 1}, "d": 2}}) == "a.b.c\t1\na.d\t2\n"


def test_json_keeps_every_letter() -> None:
    assert printed({"name": "Tür"}, as_json=True) == '{\n  "name": "Tür"\n}\n'


def test_a_cell_cannot_break_a_row() -> None:
    out = io.StringIO()

    Output(False, out, io.StringIO()).listing({}, ("A", "B"), [("a\tb", "c\nd")], "none")

    assert out.getvalue() == "a b\tc d\n"


def test_json_silences_notes_but_not_warnings() -> None:
    err = io.StringIO()
    output = Output(True, io.StringIO(), err)

    output.note("for a person")
    output.warn(["for everyone"])

    assert err.getvalue() == "warning: for everyone\n"
