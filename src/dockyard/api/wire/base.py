"""What all bodies and replies share: camelCase, unknown fields that become warnings, null for an optional field."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema

from dockyard.api.wire.fields import Ignored, printable, refused, shortened, shown
from dockyard.errors import Reason

MOST_WARNINGS = 20  # of one request; the rest is counted

T = TypeVar("T")


class WireIn(BaseModel):
    """An object of a request. Unknown fields are kept apart for `unknown_fields`; they never fail a request.

    null for an optional field, scaling parameters included, means the same as leaving it out; for a required one it is
    of the wrong type.
    """

    model_config = ConfigDict(alias_generator=to_camel, extra="allow")

    __pydantic_extra__: dict[str, Annotated[Any, Ignored()]] = Field(init=False)  # pyright: ignore[reportIncompatibleVariableOverride]

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            raise refused(Reason.WRONG_TYPE, f"must be an object, got {shown(data)}")
        optional = {field.alias for field in cls.model_fields.values() if not field.is_required()}
        return {name: value for name, value in data.items() if value is not None or name not in optional}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler.resolve_ref_schema(handler(core))
        for name, field in schema.get("properties", {}).items():
            if name not in schema.get("required", ()) and {"type": "null"} not in field.get("anyOf", ()):
                kept = {key: field.pop(key) for key in ("description", "default", "title") if key in field}
                schema["properties"][name] = {"anyOf": [field, {"type": "null"}], **kept}
        return schema


class WireOut(BaseModel):
    """An object of a reply."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


def unknown_fields(body: WireIn) -> tuple[str, ...]:
    """A warning for each field that nobody reads, with the known one that it resembles."""
    everywhere = {name.lower(): place for name, place in _places(type(body), "")}
    found = list(_unknown(body, ""))
    return _warnings("field", found, everywhere)


def unknown_parameters(sent: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
    """The same for the names in a query string: `?dryrun=true` is no dry run, and its sender should hear of it."""
    known = tuple(known)
    found = [_Unknown("", shortened(printable(name)), known) for name in dict.fromkeys(sent) if name not in known]
    return _warnings("parameter", found, {})


@dataclass(frozen=True, slots=True)
class _Unknown:
    """A field that nobody reads: where it stood, and what is known there."""

    path: str
    name: str
    known: tuple[str, ...]


def _unknown(body: WireIn, path: str) -> Iterator[_Unknown]:
    known = tuple(_aliases(type(body)))
    for name in body.model_extra or ():
        yield _Unknown(path, shortened(printable(name)), known)
    for name, field in type(body).model_fields.items():
        value = getattr(body, name)
        if isinstance(value, WireIn):
            yield from _unknown(value, f"{path}{field.alias}.")


def _warnings(kind: str, found: Sequence[_Unknown], everywhere: dict[str, str]) -> tuple[str, ...]:
    warnings = tuple(_warning(kind, unknown, everywhere) for unknown in found[:MOST_WARNINGS])
    if len(found) > MOST_WARNINGS:
        return (*warnings, f"{len(found) - MOST_WARNINGS} more unknown {kind}s were ignored")
    return warnings


def _warning(kind: str, unknown: _Unknown, everywhere: dict[str, str]) -> str:
    warning = f"unknown {kind} '{unknown.path}{unknown.name}' was ignored"
    by_lower = {name.lower(): name for name in unknown.known}
    close = get_close_matches(unknown.name.lower(), by_lower, n=1, cutoff=0.7)
    meant = by_lower[close[0]] if close else everywhere.get(unknown.name.lower())
    return f"{warning}; did you mean '{meant}'?" if meant else warning


def _places(model: type[BaseModel], path: str) -> Iterator[tuple[str, str]]:
    """Each field's own name with its whole path, to tell one that stood at the wrong level where it belongs."""
    for alias, nested in _aliases(model).items():
        if nested is not None:
            yield from _places(nested, f"{path}{alias}.")
        yield alias, f"{path}{alias}"


def _aliases(model: type[BaseModel]) -> dict[str, type[BaseModel] | None]:
    """The names that a client should use, each with the model of an object below it."""
    return {
        field.alias or name: _model_in(field.annotation)
        for name, field in model.model_fields.items()
        if not (isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("deprecated"))
    }


def _model_in(annotation: Any) -> type[BaseModel] | None:
    kinds = (annotation, *getattr(annotation, "__args__", ()))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def iso(at: datetime) -> str:
    """ISO 8601, UTC, milliseconds, `Z`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _empty(value: Any) -> bool:
    return not value


def some(value: T | None, render: Callable[[T], Any]) -> Any:
    """`render(value)`, or None for None."""
    return None if value is None else render(value)


Moment = Annotated[
    datetime,
    PlainSerializer(iso, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-02-05T11:58:03.638Z"]}),
]
Warnings = Annotated[
    tuple[str, ...],
    Field(exclude_if=_empty, description="Present when there are any: unknown fields, and what may surprise you."),
]


class Listing(WireOut):
    """What every listing has beside its items: how many there are in all, and where the next page starts."""

    total: int
    next_cursor: str | None = None
