"""Pages: newest first, each thing once, whatever is added while somebody turns them."""

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dockyard.domain.event import Event
from dockyard.domain.model import Model
from dockyard.domain.spec import ModelType
from dockyard.errors import Invalid, Reason
from dockyard.store.database import Store
from dockyard.store.paging import read_cursor, to_cursor

NOW = datetime(2026, 2, 5, 11, 58, 3, 638_001, tzinfo=UTC)


def a_model(number: int, *, at: datetime | None = None) -> Model:
    at = at or NOW + timedelta(microseconds=number)
    return Model(
        model_id=f"cm-{number:02}",
        name="m",
        model_type=ModelType.OPEN_SOURCE,
        source={},
        created_at=at,
        modified_at=at,
    )


async def walk(store: Store, limit: int) -> list[list[str]]:
    pages: list[list[str]] = []
    cursor = None
    while True:
        async with store.reading() as tx:
            page = await tx.models.page(limit, cursor)
        pages.append([model.model_id for model in page.items])
        cursor = page.next_cursor
        if cursor is None:
            return pages


async def test_the_pages_hold_everything_once_newest_first(store: Store) -> None:
    async with store.transaction() as tx:
        for number in (3, 1, 4, 2, 5):
            await tx.models.add(a_model(number))
    assert await walk(store, 2) == [["cm-05", "cm-04"], ["cm-03", "cm-02"], ["cm-01"]]
    assert await walk(store, 5) == [["cm-05", "cm-04", "cm-03", "cm-02", "cm-01"]]


async def test_nothing_is_an_empty_last_page(store: Store) -> None:
    assert await walk(store, 5) == [[]]


async def test_things_of_the_same_instant_are_told_apart(store: Store) -> None:
    async with store.transaction() as tx:
        for number in range(5):
            await tx.models.add(a_model(number, at=NOW))
    assert await walk(store, 1) == [["cm-04"], ["cm-03"], ["cm-02"], ["cm-01"], ["cm-00"]]


async def test_what_is_added_or_deleted_meanwhile_moves_nothing(store: Store) -> None:
    async with store.transaction() as tx:
        for number in range(4):
            await tx.models.add(a_model(number))
        first = await tx.models.page(2)
        assert first.total == 4
        await tx.models.add(a_model(9))
        await tx.models.delete("cm-02")  # the one that the cursor names
        second = await tx.models.page(2, first.next_cursor)
    assert [model.model_id for model in second.items] == ["cm-01", "cm-00"]
    assert second.next_cursor is None


async def test_events_of_one_instant_come_in_the_order_they_were_written(store: Store) -> None:
    event = Event(
        event_id="ev-0", at=NOW, subject="vr-1", before=None, after="Pending", reason="R", message="m", actor="ak-1"
    )
    ids = ["ev-7", "ev-2", "ev-9", "ev-1"]
    async with store.transaction() as tx:
        for event_id in ids:
            await tx.events.add(replace(event, event_id=event_id))
        await tx.events.add(replace(event, event_id="ev-5", subject="vr-2", at=NOW - timedelta(1)))
        first = await tx.events.page(3)
        second = await tx.events.page(3, first.next_cursor)
        assert (await tx.events.page(9, subject="vr-2")).total == 1
    assert [event.event_id for event in first.items + second.items] == [*reversed(ids), "ev-5"]


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


GARBAGE = [
    "",
    "x",
    "%%%",
    "ü",
    "\0",
    encoded("[]"),
    encoded("{}"),
    encoded("7"),
    encoded("not json"),
    encoded('["2026-02-05T00:00:00+00:00", 7]'),
    encoded('["2026-02-05T00:00:00", "cm-1"]'),
    encoded('["yesterday", "cm-1"]'),
    encoded('[7, "cm-1"]'),
    encoded('["2026-02-05T00:00:00+00:00", "cm-1", 1]'),
    encoded('["0001-01-01T00:00:00+23:59", "cm-1"]'),
    encoded("[" * 100_000),
    to_cursor(NOW, 2),  # of another listing
]


@pytest.mark.parametrize("cursor", GARBAGE)
async def test_a_cursor_that_no_listing_gave_is_refused(store: Store, cursor: str) -> None:
    async with store.reading() as tx:
        with pytest.raises(Invalid) as refused:
            await tx.models.page(5, cursor)
    assert (refused.value.field, refused.value.reason) == ("cursor", Reason.BAD_FORMAT)


@pytest.mark.parametrize("tie", [2**63, -1, True, None, "1"])
def test_a_position_that_no_table_holds_is_refused(tie: int) -> None:
    with pytest.raises(Invalid):
        read_cursor(to_cursor(NOW, tie), int)
