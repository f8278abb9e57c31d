"""What a schema may do to a replica: be refused, or bounded."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conversion import MODELS

from dockyard.engines.constraint import Constraints, Guide
from dockyard.engines.vocabulary import Vocabulary, read_vocabulary
from dockyard.errors import Invalid, Reason

EOS = 0
Compile = Callable[[Any], Guide]


@pytest.fixture
def constraints() -> Constraints:
    return Constraints(lambda: read_vocabulary(MODELS / "gpt2-kjv"), lambda: frozenset({EOS}))


@pytest.fixture
def guide(constraints: Constraints) -> Compile:
    return lambda schema: constraints.compile(json.dumps(schema)).begin()


def allowed(guide: Guide) -> list[int]:
    mask = guide.allowed()
    return [token for token in range(len(mask) * 8) if mask[token // 8] >> (token % 8) & 1]


def test_the_end_comes_only_where_the_text_is_whole(constraints: Constraints, guide: Compile) -> None:
    tokens = constraints.vocabulary.tokens
    row = guide({"enum": [1, 12]})
    assert [tokens[token] for token in allowed(row)] == [b"1"]
    assert not row.complete
    row.take(tokens.index(b"1"))
    assert row.complete
    assert {tokens[token] for token in allowed(row)} == {b"2", tokens[EOS]}
    row.take(tokens.index(b"2"))
    assert allowed(row) == [EOS]
    row.take(EOS)
    assert allowed(row) == [EOS]


def test_a_row_that_is_resumed_is_where_it_was(constraints: Constraints) -> None:
    constraint = constraints.compile('{"type":"object","properties":{"ab":{"type":"string"}},"required":["ab"]}')
    stepped, known = constraint.begin(), list[int]()
    for _ in range(12):
        assert allowed(constraint.begin(known)) == allowed(stepped)
        known.append(allowed(stepped)[-1])
        stepped.take(known[-1])


def test_known_tokens_of_another_schema_are_refused(constraints: Constraints) -> None:
    with pytest.raises(Invalid, match="does not go on after token"):
        constraints.compile('{"type":"object"}').begin([constraints.vocabulary.tokens.index(b"a")])


def test_rows_of_one_schema_do_not_meet(constraints: Constraints) -> None:
    constraint = constraints.compile('{"enum":["a","b"]}')
    first, second = constraint.begin(), constraint.begin()
    first.take(constraints.vocabulary.tokens.index(b'"'))
    assert allowed(first) != allowed(second)
    assert constraints.compile('{"enum":["a","b"]}') is constraint


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "objekt"}, "Invalid type: objekt"),
        ({"type": "object", "unevaluatedProperties": False}, "Unimplemented keys"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "Unsatisfiable"),
        ({"$ref": "#/$defs/nothing"}, "cannot be used"),
        ({"$ref": "http://127.0.0.1:9/schema"}, "does not fetch"),
        ({"$ref": "file:///etc/passwd"}, "does not fetch"),
        ({"$ref": "#"}, "no text that this model can write matches it"),
        ({"type": "string", "format": "nope"}, "Unknown format"),
        ({"pattern": "(", "type": "string"}, "cannot be used"),
        ({"type": "object", "x-guidance": {"lenient": True}, "unevaluatedItems": False}, "Unimplemented keys"),
    ],
)
def test_what_is_wrong_with_a_schema_is_told(guide: Compile, schema: Any, says: str) -> None:
    with pytest.raises(Invalid, match=says) as refused:
        guide(schema)
    assert (refused.value.reason, refused.value.field) == (
        Reason.SCHEMA_NOT_SUPPORTED,
        "response_format.json_schema.schema",
    )


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^(.*a.{30}){10}$"},
        {"type": "string", "pattern": "^(a{1,31}){1,31}$"},
        {"type": "string", "minLength": 10**6, "maxLength": 10**8},
        {"type": "array", "minItems": 10**6, "items": {"type": "array", "minItems": 10**6}},
        {
            "$defs": {"n": {"type": "object", "properties": {"c": {"$ref": "#/$defs/n"}}, "required": ["c"]}},
            "$ref": "#/$defs/n",
        },
        {"anyOf": [{"type": "object", "properties": {f"p{i}": {}}} for i in range(500)]},
        {"multipleOf": 997, "type": "integer"},
    ],
)
def test_what_costs_much_is_bounded(guide: Compile, schema: Any) -> None:
    """Refused at once, or after some steps, or fine: in no case does a step take for ever, or the process fall."""
    began = time.process_time()
    try:
        row = guide(schema)
        for step in range(60):
            choices = allowed(row)
            row.take(choices[step * 7 % len(choices)])
    except Invalid as refused:
        told = refused.reason
    else:
        told = Reason.SCHEMA_NOT_SUPPORTED
    assert told is Reason.SCHEMA_NOT_SUPPORTED
    assert time.process_time() - began < 60


def test_a_tokenizer_that_writes_between_its_tokens_cannot_be_constrained() -> None:
    constraints = Constraints(lambda: Vocabulary([b"a"], frozenset(), spells=False), lambda: frozenset({EOS}))
    with pytest.raises(Invalid) as refused:
        constraints.compile("{}")
    assert refused.value.reason is Reason.ENGINE_CANNOT


def test_characters_of_t5_spell_numbers_and_no_objects(tmp_path: Path) -> None:
    constraints = Constraints(lambda: read_vocabulary(MODELS / "t5-date"), lambda: frozenset({1}))
    row = constraints.compile('{"type":"integer","minimum":10,"maximum":12}').begin()
    assert [constraints.vocabulary.tokens[token] for token in allowed(row)] == [b"1"]
    with pytest.raises(Invalid, match="no text that this model can write"):
        constraints.compile('{"type":"object"}')
