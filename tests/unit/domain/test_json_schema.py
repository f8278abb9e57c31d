from typing import Any

import pytest

from dockyard.domain.json_schema import (
    MAX_BYTES,
    MAX_CHOICES,
    MAX_DEPTH,
    MAX_PATTERN_LENGTH,
    MAX_PATTERNS,
    MAX_PROPERTIES,
    repetitions,
    schema_problems,
)


def problems(schema: Any, size: int = 100) -> list[tuple[str, str]]:
    return [(problem.at, problem.what) for problem in schema_problems(schema, size)]


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth - 1):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": ["string", "null"], "pattern": r"^\d{4}-\d{2}-\d{2}$"},
        {"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(MAX_PROPERTIES)}},
        {"properties": {"pattern": {"type": "string"}, "type": {"type": "number"}, "multipleOf": {}, "enum": {}}},
        {"const": {"pattern": "(a{1000}){1000}", "type": "nothing"}, "enum": [{"multipleOf": 99999989}]},
        {"multipleOf": 0.01},
        {"multipleOf": 1000},
        nested(MAX_DEPTH),
    ],
)
def test_fine(schema: Any) -> None:
    assert problems(schema) == []


@pytest.mark.parametrize(
    ("schema", "at", "says"),
    [
        ({"type": "objekt"}, ".type", "must be one of array, boolean"),
        ({"properties": {"a": {"type": "text"}}}, ".properties.a.type", "got 'text'"),
        ({"items": {"pattern": "(a{1000}){1000}"}}, ".items.pattern", "repeat nothing more than 1000 times"),
        ({"pattern": "a" * (MAX_PATTERN_LENGTH + 1)}, ".pattern", "at most 512 characters"),
        ({"patternProperties": {"(a{99}){99}": {}}}, ".patternProperties['(a{99}){99}']", "1000 times"),
        ({"properties": {"default": {"pattern": "(a{99}){99}"}}}, ".properties.default.pattern", "1000 times"),
        ({"anyOf": [{}, {"multipleOf": 99999989}]}, ".anyOf[1].multipleOf", "at most 1000 in units of its last digit"),
        ({"multipleOf": 0.000123456}, ".multipleOf", "at most 1000"),
        ({"x-guidance": {"whitespace_pattern": "(a{99}){99}"}}, ".x-guidance", "is not taken"),
        ({"multipleOf": 0}, ".multipleOf", "above 0"),
        ({"multipleOf": 1e300}, ".multipleOf", "at most 1000"),
        (
            {"properties": {f"p{i}": {} for i in range(MAX_PROPERTIES + 1)}},
            "",
            "at most 500 properties in all, got 501",
        ),
        ({"enum": list(range(MAX_CHOICES + 1))}, "", "at most 2000 choices"),
        ({"allOf": [{"pattern": "a"}] * (MAX_PATTERNS + 1)}, "", "at most 50 patterns"),
        (nested(MAX_DEPTH + 1), "", "at most 32 deep"),
        (nested(5000), "", "at most 32 deep"),
    ],
)
def test_beyond_the_bounds(schema: Any, at: str, says: str) -> None:
    ((found, what),) = problems(schema)
    assert found == at
    assert says in what


def test_a_large_schema_is_not_looked_into() -> None:
    assert problems({"type": "objekt"}, MAX_BYTES + 1) == [
        ("", f"must have at most {MAX_BYTES} bytes, got {MAX_BYTES + 1}")
    ]


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("", 1),
        ("abc*d+", 1),
        (r"^\d{4}-\d{2}$", 4),
        ("(a{2}b){3}", 6),
        ("((a{10}){10}|b{3}){11}", 1100),
        ("a{,7}", 7),
        ("a{5,}", 5),
        ("(a{1000}){1000}", 1_000_000),
        (r"[{99}]\{99}", 1),
        ("a{3}{5}", 15),
        ("a){5}(", 5),
    ],
)
def test_repetitions_within_repetitions_multiply(pattern: str, count: int) -> None:
    assert repetitions(pattern) == count
