"""Which JSON schemas are taken as constraints: bounds on what one may cost. What its keywords mean is not checked here.

The library that compiles schemas bounds its work, too, but not where it would count: a pattern of a thousand times a
thousand repetitions, or a multiple of 99,999,989, takes it seconds for a step, five thousand properties seconds.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, cast

MAX_BYTES: Final = 65_536
MAX_DEPTH: Final = 32
MAX_PROPERTIES: Final = 500  # of all objects together, as the other two
MAX_CHOICES: Final = 2_000
MAX_PATTERNS: Final = 50
MAX_PATTERN_LENGTH: Final = 512
MAX_REPETITIONS: Final = 1_000
MAX_MULTIPLE: Final = 1_000

_DATA = frozenset({"const", "default", "enum", "example", "examples"})  # what is in these is no schema
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})  # schemas by name
_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
_REPETITION = re.compile(r"\{(\d{1,9})?(,)?(\d{1,9})?\}")


@dataclass(frozen=True, slots=True)
class SchemaProblem:
    """`at` is a path below the schema, such as `.properties.age`."""

    at: str
    what: str


def schema_problems(schema: Any, size: int) -> list[SchemaProblem]:
    """Everything that is beyond the bounds; `size` is the schema's as JSON, in bytes."""
    if size > MAX_BYTES:
        return [SchemaProblem("", f"must have at most {MAX_BYTES} bytes, got {size}")]
    problems: list[SchemaProblem] = []
    counts = {"properties": 0, "choices": 0, "patterns": 0}
    for at, depth, value, by_name in _below(schema):
        if depth > MAX_DEPTH:
            return [SchemaProblem("", f"must be nested at most {MAX_DEPTH} deep")]
        if isinstance(value, dict) and not by_name:
            keywords = cast(dict[str, Any], value)
            problems += [SchemaProblem(f"{at}{key}", what) for key, what in _keyword_problems(keywords)]
            _count(counts, keywords)
    most = {"properties": MAX_PROPERTIES, "choices": MAX_CHOICES, "patterns": MAX_PATTERNS}
    for what, count in counts.items():
        if count > most[what]:
            problems.append(SchemaProblem("", f"must have at most {most[what]} {what} in all, got {count}"))
    return problems


def _below(schema: Any) -> Iterator[tuple[str, int, Any, bool]]:
    """Every value of the schema, its path and depth, and whether its keys are names; without recursion."""
    left: list[tuple[str, int, Any, bool]] = [("", 1, schema, False)]
    while left:
        at, depth, value, by_name = left.pop()
        yield at, depth, value, by_name
        if depth > MAX_DEPTH:
            return
        if isinstance(value, dict):
            for key, below in cast(dict[str, Any], value).items():
                if by_name or key not in _DATA:
                    left.append((f"{at}.{key[:64]}", depth + 1, below, not by_name and key in _NAMED))
        elif isinstance(value, list):
            left += [(f"{at}[{index}]", depth + 1, below, False) for index, below in enumerate(cast(list[Any], value))]


def _count(counts: dict[str, int], schema: dict[str, Any]) -> None:
    for key in ("properties", "patternProperties", "$defs", "definitions"):
        counts["properties"] += _size(schema.get(key), dict)
    for key in ("enum", "anyOf", "oneOf", "allOf", "prefixItems"):
        counts["choices"] += _size(schema.get(key), list)
    counts["patterns"] += isinstance(schema.get("pattern"), str) + _size(schema.get("patternProperties"), dict)


def _size(value: Any, kind: type[dict[Any, Any]] | type[list[Any]]) -> int:
    return len(cast(list[Any], value)) if isinstance(value, kind) else 0


def _keyword_problems(schema: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Path below the schema's and what is wrong there. A property may have a keyword's name: then it is an object."""
    kind = schema.get("type")
    if isinstance(kind, str) and kind not in _TYPES:
        yield ".type", f"must be one of {', '.join(_TYPES)}, got '{kind[:64]}'"
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and (what := _pattern_problem(pattern)):
        yield ".pattern", what
    patterns = schema.get("patternProperties")
    if isinstance(patterns, dict):
        for key in cast(dict[str, Any], patterns):
            if what := _pattern_problem(key):
                yield f".patternProperties['{key[:64]}']", what
    if "x-guidance" in schema:
        yield ".x-guidance", "is not taken: it would set the library's own options"
    multiple = schema.get("multipleOf")
    if isinstance(multiple, int | float) and (what := _multiple_problem(multiple)):
        yield ".multipleOf", what


def _pattern_problem(pattern: str) -> str | None:
    if len(pattern) > MAX_PATTERN_LENGTH:
        return f"must have at most {MAX_PATTERN_LENGTH} characters, got {len(pattern)}"
    if repetitions(pattern) > MAX_REPETITIONS:
        return f"must repeat nothing more than {MAX_REPETITIONS} times, repetitions within repetitions multiplied"
    return None


def repetitions(pattern: str) -> int:
    """How often counted repetitions write out the innermost part of a pattern: 6 for `(a{2}b){3}`.

    Of parts that stand beside each other the larger one counts; `*` and `+` write nothing out.
    """
    open_groups = [1]  # of each group that is open: the largest count in it
    last = 1  # … of the part that ended last
    rest = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "x", pattern, flags=re.DOTALL)  # a part each, whatever is in it
    index = 0
    while index < len(rest):
        found = _REPETITION.match(rest, index)
        if found is not None:
            last *= max(1, int(found[1] or 0), int(found[3] or 0))
            index = found.end() - 1
        elif rest[index] == "(":
            open_groups.append(1)
            last = 1
        elif rest[index] == ")" and len(open_groups) > 1:
            last = open_groups.pop()
        elif rest[index] not in "*+?":
            last = 1
        open_groups[-1] = max(open_groups[-1], last)
        index += 1
    return max(open_groups)


def _multiple_problem(multiple: float) -> str | None:
    """The automaton of a multiple has a state for each remainder, in units of the last decimal."""
    number = Decimal(repr(multiple))
    if not number.is_finite() or number <= 0:
        return f"must be above 0, got {multiple}"
    digits = int("".join(map(str, number.normalize().as_tuple().digits)))
    exponent = number.normalize().as_tuple().exponent
    steps = digits * 10 ** min(max(int(exponent), 0), 9)
    if steps > MAX_MULTIPLE:
        return f"must be at most {MAX_MULTIPLE} in units of its last digit, got {multiple}"
    return None
