"""Between entities and rows. `columns.py` converts the values, so a row differs from its entity by name only."""

from dataclasses import Field, fields
from typing import Any, ClassVar, Protocol, TypeVar

from sqlalchemy import RowMapping, Table

from dockyard.store.tables import Base


class Entity(Protocol):
    """A dataclass of the domain."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


E = TypeVar("E", bound=Entity)


def table_of(row: type[Base]) -> Table:
    table = row.__table__
    if not isinstance(table, Table):
        raise TypeError(f"{row.__name__} is mapped to {table!r}, not to a table")
    return table


def field_names(kind: type[Entity]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def to_row(entity: Entity) -> dict[str, Any]:
    """Column values. Not `dataclasses.asdict`, which would take the nested dataclasses apart."""
    return {name: getattr(entity, name) for name in field_names(type(entity))}


def from_row(kind: type[E], row: RowMapping) -> E:
    return kind(**{name: row[name] for name in field_names(kind)})
