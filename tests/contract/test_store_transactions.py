"""Transactions: all or nothing, one writer at a time, and reads of one state."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import event

from dockyard.domain.model import Model
from dockyard.domain.spec import ModelType
from dockyard.errors import Reason, Unavailable
from dockyard.store import engine
from dockyard.store.database import Store

NOW = datetime(2026, 2, 5, tzinfo=UTC)
MODEL = Model(model_id="cm-1", name="m", model_type=ModelType.OPEN_SOURCE, source={}, created_at=NOW, modified_at=NOW)


async def test_a_block_that_raises_leaves_nothing_and_its_error_untouched(store: Store) -> None:
    async def break_off() -> None:
        async with store.transaction() as tx:
            await tx.models.add(MODEL)
            raise FileNotFoundError("the caller's own")

    with pytest.raises(FileNotFoundError, match="the caller's own"):
        await break_off()
    async with store.reading() as tx:
        assert await tx.models.find("cm-1") is None


async def test_a_cancelled_transaction_leaves_nothing_and_lets_the_next_one_in(store: Store) -> None:
    inside = asyncio.Event()

    async def hang() -> None:
        async with store.transaction() as tx:
            await tx.models.add(MODEL)
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with store.transaction() as tx:
        assert await tx.models.find("cm-1") is None
        await tx.models.add(MODEL)


@pytest.mark.parametrize("moment", ["begin", "before_cursor_execute", "commit", "rollback"])
@pytest.mark.parametrize("reading", [False, True])
async def test_a_cancellation_in_the_midst_of_a_statement_harms_no_other(
    store: Store, moment: str, reading: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def talk() -> None:
        async with store.reading() if reading else store.transaction() as tx:
            await tx.models.find("cm-1")

    task = asyncio.create_task(talk())
    made = store._engine
    assert made is not None

    def cancel(*_: object) -> None:
        task.cancel()

    given_up: list[object] = []
    event.listen(made.sync_engine, moment, cancel)
    event.listen(made.sync_engine, "invalidate", lambda *what: given_up.append(what))
    await asyncio.wait([task])
    event.remove(made.sync_engine, moment, cancel)
    assert given_up == []  # one that is given up in mid-statement may go on to take the write lock
    # A reading ends with a rollback, a transaction with a commit.
    assert task.cancelled() == (moment != ("commit" if reading else "rollback"))
    assert made.pool.status().endswith("connections: 0")
    async with store.transaction() as tx:
        await tx.models.add(MODEL)


async def test_reading_cannot_write(store: Store) -> None:
    async with store.reading() as tx:
        with pytest.raises(RuntimeError, match=r"Store\.transaction"):
            await tx.models.add(MODEL)


async def test_reading_sees_one_state_while_others_write(store: Store) -> None:
    async with store.reading() as tx:
        assert await tx.models.find("cm-1") is None
        async with store.transaction() as writer:
            await writer.models.add(MODEL)
        assert await tx.models.find("cm-1") is None
    async with store.reading() as tx:
        assert await tx.models.find("cm-1") == MODEL


async def test_a_transaction_inside_a_transaction_is_told_at_once(store: Store) -> None:
    async with store.transaction():
        with pytest.raises(RuntimeError, match="open in this task"):
            async with store.transaction():
                pass


async def test_writers_of_two_servers_take_turns(store: Store, second_store: Store) -> None:
    async with store.transaction() as tx:
        await tx.models.add(MODEL)

    async def count_up(on: Store) -> None:
        async with on.transaction() as tx:
            model = await tx.models.get("cm-1")
            await tx.models.save(replace(model, size_bytes=model.size_bytes + 1))

    await asyncio.gather(*(count_up(on) for on in (store, second_store) for _ in range(10)))
    async with store.reading() as tx:
        assert (await tx.models.get("cm-1")).size_bytes == 20


async def test_waiting_for_another_servers_transaction_ends(
    store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_MS", 20)
    impatient = Store(database_url)
    await impatient.open()
    async with store.transaction():
        with pytest.raises(Unavailable) as busy:
            async with impatient.transaction():
                pass
    assert busy.value.reason is Reason.DATABASE_UNAVAILABLE
    async with impatient.transaction() as tx:
        await tx.models.add(MODEL)
    await impatient.close()


async def test_a_store_that_is_not_open_says_so(database_url: str) -> None:
    with pytest.raises(Unavailable, match="not open"):
        async with Store(database_url).reading():
            pass
