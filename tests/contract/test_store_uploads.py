"""Uploads in the store: sessions, the chunks that go with them, and when they end."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dockyard.domain.spec import ModelType
from dockyard.domain.upload import FileExtension, UploadChunk, UploadSession
from dockyard.errors import Conflict, NotFound, Stale
from dockyard.store.database import Store

NOW = datetime(2026, 2, 5, tzinfo=UTC)


def session(session_id: str = "up-1", ends_in_s: float = 10) -> UploadSession:
    return UploadSession(
        session_id=session_id,
        model_id="cm-1",
        file_name="modèle.tar",
        extension=FileExtension.TAR,
        file_size=5 << 30,
        total_chunks=100_000,
        name="Modèle",
        model_type=ModelType.FINE_TUNE,
        created_at=NOW,
        expires_at=NOW + timedelta(seconds=ends_in_s),
        base_model_id="cm-0",
        is_adapter=True,
    )


def chunk(number: int, size: int = 1 << 30, session_id: str = "up-1") -> UploadChunk:
    return UploadChunk(session_id=session_id, number=number, size=size, sha256="0" * 64)


async def test_a_session_comes_back_as_it_was(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.uploads.add(session())
        saved = await tx.uploads.save(replace(session(), job_id="ds-1"))
    async with store.reading() as tx:
        assert await tx.uploads.get("up-1") == saved
        assert await tx.uploads.jobs_by_session() == {"up-1": "ds-1"}
        with pytest.raises(NotFound, match="upload up-2"):
            await tx.uploads.get("up-2")
    async with store.transaction() as tx:
        with pytest.raises(Stale):
            await tx.uploads.save(session())


async def test_chunks_come_by_number_and_the_last_of_a_number_counts(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.uploads.add(session())
        for number in (10, 2, 99_999, 0, 2):
            await tx.uploads.put_chunk(chunk(number))
        await tx.uploads.put_chunk(chunk(2, size=7))
    async with store.reading() as tx:
        assert await tx.uploads.chunks("up-1") == [chunk(0), chunk(2, size=7), chunk(10), chunk(99_999)]
        assert await tx.uploads.chunks("up-2") == []
        assert await tx.uploads.bytes_beside("up-1", 2) == 3 << 30
        assert await tx.uploads.bytes_beside("up-2", 2) == 0


async def test_chunks_go_with_their_session(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.uploads.add(session())
        await tx.uploads.add(session("up-2"))
        await tx.uploads.put_chunk(chunk(0))
        await tx.uploads.put_chunk(chunk(0, session_id="up-2"))
        await tx.uploads.delete("up-1")
    async with store.reading() as tx:
        assert await tx.uploads.chunks("up-1") == []
        assert await tx.uploads.chunks("up-2") == [chunk(0, session_id="up-2")]


async def test_a_chunk_of_no_session_is_refused(store: Store) -> None:
    with pytest.raises(Conflict):
        async with store.transaction() as tx:
            await tx.uploads.put_chunk(chunk(0))


async def test_sessions_end(store: Store) -> None:
    async with store.reading() as tx:
        assert await tx.uploads.next_expiry() is None
    async with store.transaction() as tx:
        for session_id, ends_in_s in (("up-1", 10), ("up-2", 5), ("up-3", 20)):
            await tx.uploads.add(session(session_id, ends_in_s))
    async with store.reading() as tx:
        assert await tx.uploads.next_expiry() == NOW + timedelta(seconds=5)
        ended = await tx.uploads.expired(NOW + timedelta(seconds=10))
        assert {one.session_id for one in ended} == {"up-1", "up-2"}
        assert await tx.uploads.expired(NOW) == []
