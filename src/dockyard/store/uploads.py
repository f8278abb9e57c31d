"""Uploads in progress, and which of their chunks lie whole on the disk."""

from datetime import datetime

from sqlalchemy import delete, func, insert, select

from dockyard.domain.upload import UploadChunk, UploadSession
from dockyard.store.executor import Executor
from dockyard.store.repository import RevisedRepository
from dockyard.store.rows import field_names, from_row, table_of, to_row
from dockyard.store.tables import UploadChunkRow, UploadSessionRow


class Uploads(RevisedRepository[UploadSession]):
    """A session's chunks go with it."""

    noun = "upload"
    kind = UploadSession
    row = UploadSessionRow
    key = "session_id"

    def __init__(self, executor: Executor) -> None:
        super().__init__(executor)
        self._chunks = table_of(UploadChunkRow)

    async def chunks(self, session_id: str) -> list[UploadChunk]:
        """By number."""
        columns = (self._chunks.c[name] for name in field_names(UploadChunk))
        query = select(*columns).where(UploadChunkRow.session_id == session_id).order_by(UploadChunkRow.number)
        return [from_row(UploadChunk, row) for row in await self._executor.rows(query)]

    async def bytes_beside(self, session_id: str, number: int) -> int:
        """What the session's chunks but this one have together."""
        others = (UploadChunkRow.session_id == session_id, UploadChunkRow.number != number)
        return int(await self._executor.value(select(func.coalesce(func.sum(UploadChunkRow.size), 0)).where(*others)))

    async def put_chunk(self, chunk: UploadChunk) -> None:
        """Note the chunk; one that came before under its number gives way."""
        before = (UploadChunkRow.session_id == chunk.session_id, UploadChunkRow.number == chunk.number)
        await self._executor.write(delete(self._chunks).where(*before))
        await self._executor.write(insert(self._chunks).values(to_row(chunk)))

    async def expired(self, now: datetime) -> list[UploadSession]:
        """The sessions whose time is over as of `now`, the completed ones included."""
        return await self._all(self._select().where(UploadSessionRow.expires_at <= now))

    async def jobs_by_session(self) -> dict[str, str | None]:
        """Every session there is, with the import that was begun from it."""
        rows = await self._executor.rows(select(self._id, self._table.c.job_id))
        return {row["session_id"]: row["job_id"] for row in rows}

    async def open_count(self, now: datetime) -> int:
        """How many still wait for chunks or for their completion."""
        still = (UploadSessionRow.job_id.is_(None), UploadSessionRow.expires_at > now)
        return int(await self._executor.value(select(func.count()).select_from(UploadSessionRow).where(*still)))

    async def next_expiry(self) -> datetime | None:
        """When the next session ends."""
        query = select(UploadSessionRow.expires_at).order_by(UploadSessionRow.expires_at).limit(1)
        rows = await self._executor.rows(query)
        return rows[0]["expires_at"] if rows else None
