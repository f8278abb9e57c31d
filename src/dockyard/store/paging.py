"""Pages of a listing, newest first. A cursor names the last thing seen, so what is added meanwhile moves nothing."""

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

from dockyard.errors import Invalid

T = TypeVar("T")

_POSITIONS = range(2**63)  # what a BIGINT column holds


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """`total` counts all pages' items; `next_cursor` is None on the last page."""

    items: tuple[T, ...]
    total: int
    next_cursor: str | None


def to_cursor(at: datetime, tie: str | int) -> str:
    """Where a page ended: the instant of its last item, and what orders items of one instant."""
    return base64.urlsafe_b64encode(json.dumps([at.isoformat(), tie]).encode()).decode().rstrip("=")


def read_cursor(cursor: str, tie_type: type[str] | type[int]) -> tuple[datetime, str | int]:
    """The opposite of `to_cursor`. Raises `Invalid` for anything that it did not make."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        written, tie = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        at = datetime.fromisoformat(written)
        in_utc = at.astimezone(UTC)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise _refused() from None
    if type(tie) is not tie_type or at.tzinfo is None or (isinstance(tie, int) and tie not in _POSITIONS):
        raise _refused()
    return in_utc, tie


def _refused() -> Invalid:
    return Invalid("cursor is not one that this listing gave; leave it out to start at the first page", field="cursor")
