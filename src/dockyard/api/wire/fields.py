"""The fields of requests: strict types, bounds and choices, each refused in one sentence with its reason.

A check raises `refused(...)`; `problems.py` puts the field's path in front of the sentence. Each field describes itself
for OpenAPI, too.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, LiteralString, cast

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from dockyard.domain.spec import Bounds
from dockyard.errors import Reason

SHOWN = 80  # characters of a refused value that its message repeats
_SURROGATE = re.compile("[\ud800-\udfff]")
_WHOLE = re.compile(r"-?[0-9]{1,18}", re.ASCII)


def refused(reason: Reason, sentence: str) -> PydanticCustomError:
    """The error that a check raises: `must be between 0 and 2, got 3`."""
    return PydanticCustomError(cast(LiteralString, reason.value), "{sentence}", {"sentence": sentence})


def shown(value: object) -> str:
    """A refused value as a message repeats it: as JSON, shortened; of arrays and objects only that they are one."""
    match value:
        case None | bool():
            return json.dumps(value)
        case dict():
            return "an object"
        case list():
            return "an array"
        case str():
            return json.dumps(shortened(printable(value)), ensure_ascii=False)
        case _:
            return shortened(json.dumps(value))


def shortened(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def printable(text: str) -> str:
    """`text` with halves of surrogate pairs, which UTF-8 cannot carry, replaced."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


class Field:
    """What stands in `Annotated[type, Field]`: `check` reads one value, `schema` describes it as JSON Schema."""

    def check(self, value: Any) -> Any:
        raise NotImplementedError

    def schema(self) -> dict[str, Any]:
        raise NotImplementedError

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return self.schema()


@dataclass(frozen=True, eq=False)
class Number(Field):
    """A finite JSON number; true and "1" are none."""

    bounds: Bounds

    def check(self, value: Any) -> float:
        if type(value) is not int and not (type(value) is float and math.isfinite(value)):
            raise refused(Reason.WRONG_TYPE, f"must be a number, got {shown(value)}")
        return float(_within(self.bounds, value))

    def schema(self) -> dict[str, Any]:
        return {"type": "number", "minimum": self.bounds.low, "maximum": self.bounds.high}


@dataclass(frozen=True, eq=False)
class Integer(Field):
    """A JSON number written without fraction and exponent; 1.0, true and "1" are none."""

    bounds: Bounds

    def check(self, value: Any) -> int:
        if type(value) is not int:
            raise refused(Reason.WRONG_TYPE, f"must be an integer, got {shown(value)}")
        return _within(self.bounds, value)

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.bounds.low, "maximum": self.bounds.high}


class QueryInteger(Integer):
    """An integer in a query string."""

    def check(self, value: Any) -> int:
        if not _WHOLE.fullmatch(value):
            raise refused(Reason.WRONG_TYPE, f"must be an integer, got {shown(value)}")
        return _within(self.bounds, int(value))


class Flag(Field):
    """true or false."""

    def check(self, value: Any) -> bool:
        if type(value) is not bool:
            raise refused(Reason.WRONG_TYPE, f"must be true or false, got {shown(value)}")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


class QueryFlag(Flag):
    """`true` or `false` in a query string."""

    def check(self, value: Any) -> bool:
        if value not in ("true", "false"):
            raise refused(Reason.WRONG_TYPE, f"must be true or false, got {shown(value)}")
        return value == "true"


@dataclass(frozen=True, eq=False)
class Text(Field):
    """A string of so many characters; `rule` says in words what `pattern` asks for."""

    length: Bounds
    pattern: str | None = None
    rule: str = ""

    def check(self, value: Any) -> str:
        text = _string(value)
        low, high = self.length
        if not low <= len(text) <= high:
            raise refused(Reason.OUT_OF_RANGE, f"must be {low} to {high} characters long, got {len(text)}")
        if self.pattern is not None and not re.fullmatch(self.pattern.removesuffix("$"), text):
            raise refused(Reason.BAD_FORMAT, f"{self.rule}, got {shown(text)}")
        return text

    def schema(self) -> dict[str, Any]:
        pattern = {} if self.pattern is None else {"pattern": self.pattern}
        return {"type": "string", "minLength": self.length.low, "maxLength": self.length.high, **pattern}


class OneOf(Field):
    """One of the listed strings; what it stands for is the value that is read."""

    def __init__(self, choices: Mapping[str, Any] | Iterable[str]) -> None:
        self.choices = dict(choices) if isinstance(choices, Mapping) else {str(choice): choice for choice in choices}

    def check(self, value: Any) -> Any:
        text = _string(value)
        if text not in self.choices:
            listed = ", ".join(choice or '""' for choice in self.choices)
            raise refused(Reason.NOT_IN_ENUM, f"must be one of {listed}, got {shown(text)}")
        return self.choices[text]

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.choices)}


@dataclass(frozen=True, eq=False)
class Items:
    """An array of so many items. Counted before the items are looked at, so that a huge one costs one message."""

    count: Bounds

    def check(self, value: Any) -> list[Any]:
        if type(value) is not list:
            raise refused(Reason.WRONG_TYPE, f"must be an array, got {shown(value)}")
        low, high = self.count
        if not low <= len(value) <= high:
            raise refused(Reason.OUT_OF_RANGE, f"must have {low} to {high} items, got {len(value)}")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(core), "minItems": self.count.low, "maxItems": self.count.high}


class Ignored(Field):
    """The value of an unknown field: anything, as long as it is JSON. Python's reader lets NaN and Infinity pass."""

    def check(self, value: Any) -> Any:
        open_ends = [value]  # a stack, as a body may nest deeper than Python recurses
        while open_ends:
            match open_ends.pop():
                case float() as number if not math.isfinite(number):
                    raise refused(Reason.WRONG_TYPE, f"holds {shown(number)}, which is no number in JSON")
                case dict() as members:
                    open_ends.extend(members.values())
                case list() as items:
                    open_ends.extend(items)
                case _:
                    pass
        return value

    def schema(self) -> dict[str, Any]:
        return {}


def _string(value: Any) -> str:
    if type(value) is not str:
        raise refused(Reason.WRONG_TYPE, f"must be a string, got {shown(value)}")
    if not value.isascii() and _SURROGATE.search(value):
        raise refused(Reason.BAD_FORMAT, "holds half of a surrogate pair, which is no character")
    return value


def _within(bounds: Bounds, value: Any) -> Any:
    if not bounds.low <= value <= bounds.high:
        raise refused(Reason.OUT_OF_RANGE, f"must be between {bounds.low} and {bounds.high}, got {shown(value)}")
    return value
