"""Uploads: start one, take its chunks, complete it into an import, or give it up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

from dockyard.domain.ids import new_id
from dockyard.domain.job import Job
from dockyard.domain.model import Model
from dockyard.domain.spec import ModelType
from dockyard.domain.upload import (
    FileExtension,
    UploadChunk,
    UploadSession,
    check_few,
    check_number,
    check_open,
    check_plan,
    check_total,
    check_whole,
)
from dockyard.errors import Invalid, NotFound, Reason
from dockyard.services.context import Context
from dockyard.services.models import begin_import, check_base
from dockyard.services.upload_files import IncomingChunk
from dockyard.store.transaction import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadWish:
    """An archive that is about to come."""

    file_name: str
    extension: FileExtension
    file_size: int
    total_chunks: int
    name: str
    model_type: ModelType
    base_model_id: str | None = None
    is_adapter: bool | None = None  # None: the client does not say


async def start_upload(ctx: Context, wish: UploadWish) -> UploadSession:
    """Raises `Invalid` for numbers that cannot be, `NotFound` for an unknown base model, `Unavailable` (DISK_FULL),
    `TooMany` (TOO_MANY_UPLOADS).
    """
    problems = check_plan(wish.file_name, wish.extension, wish.file_size, wish.total_chunks)
    if problems:
        raise Invalid(problems=problems)
    ctx.uploads.check_room(wish.file_size)
    now = ctx.clock.now()
    session = UploadSession(
        session_id=new_id("up"),
        model_id=new_id("cm"),
        file_name=wish.file_name,
        extension=wish.extension,
        file_size=wish.file_size,
        total_chunks=wish.total_chunks,
        name=wish.name,
        model_type=wish.model_type,
        created_at=now,
        expires_at=now + timedelta(seconds=ctx.policy.upload_ttl_s),
        base_model_id=wish.base_model_id,
        is_adapter=wish.is_adapter is True,
        is_whole=wish.is_adapter is False,
    )
    async with ctx.store.transaction() as tx:
        if wish.base_model_id is not None:
            await check_base(tx, wish.base_model_id)
        check_few(await tx.uploads.open_count(now), await tx.uploads.next_expiry(), now)
        await tx.uploads.add(session)
    ctx.wake()
    return session


async def get_upload(ctx: Context, session_id: str) -> tuple[UploadSession, list[UploadChunk]]:
    """The session and the chunks that are there. Raises `NotFound`, also once it expired."""
    async with ctx.store.reading() as tx:
        session = await _living(ctx, tx, session_id)
        chunks = await tx.uploads.chunks(session_id)
    sizes = await asyncio.to_thread(ctx.uploads.sizes, session_id)
    return session, _on_disk(chunks, sizes)


@asynccontextmanager
async def receiving(ctx: Context, session_id: str) -> AsyncIterator[tuple[UploadSession, IncomingChunk]]:
    """A chunk of the session to write into. Raises `NotFound`, `Conflict` (UPLOAD_COMPLETED)."""
    async with ctx.store.reading() as tx:
        session = await _living(ctx, tx, session_id)
    check_open(session)
    incoming = await asyncio.to_thread(IncomingChunk, ctx.uploads.folder(session_id))
    try:
        yield session, incoming
    finally:
        await asyncio.to_thread(incoming.close)


async def keep_chunk(
    ctx: Context, session: UploadSession, number: int, incoming: IncomingChunk, sha256: str | None
) -> UploadChunk:
    """Take the chunk that came whole, in place of one with its number. Each chunk prolongs the session.

    Raises `Invalid` (OUT_OF_RANGE, SIZE_MISMATCH, DIGEST_MISMATCH), `NotFound`, `Conflict`, `Unavailable`.
    """
    check_number(session, number)
    _check_digest(incoming, sha256)
    chunk = UploadChunk(session_id=session.session_id, number=number, size=incoming.size, sha256=incoming.sha256)
    await asyncio.to_thread(incoming.sync)
    now = ctx.clock.now()
    async with ctx.store.transaction() as tx:
        session = await _living(ctx, tx, session.session_id)
        check_open(session)
        check_total(session, await tx.uploads.bytes_beside(session.session_id, number), chunk.size)
        # Transactions that write come one after the other, so file and row of two that send one number agree.
        incoming.keep(number)
        await tx.uploads.put_chunk(chunk)
        await tx.uploads.save(replace(session, expires_at=now + timedelta(seconds=ctx.policy.upload_ttl_s)))
    return chunk


async def complete_upload(
    ctx: Context, session_id: str, sha256: str | None, warnings: tuple[str, ...], actor: str
) -> Job:
    """Begin the import of an upload that is whole; asked again, the job that was begun.

    Raises `NotFound`, and `Conflict` (CHUNKS_MISSING, SIZE_MISMATCH).
    """
    sizes = await asyncio.to_thread(ctx.uploads.sizes, session_id)
    async with ctx.store.transaction() as tx:
        session = await _living(ctx, tx, session_id)
        if session.job_id is not None:
            return await tx.jobs.get(session.job_id)
        check_whole(session, _on_disk(await tx.uploads.chunks(session_id), sizes))
        job = await begin_import(tx, _model(session, sha256, ctx), warnings, actor)
        await tx.uploads.save(replace(session, job_id=job.job_id))
    ctx.wake()
    return job


async def cancel_upload(ctx: Context, session_id: str) -> None:
    """Remove an upload that nobody will complete. Raises `NotFound`, `Conflict` (UPLOAD_COMPLETED)."""
    async with ctx.store.transaction() as tx:
        check_open(await _living(ctx, tx, session_id))
        await tx.uploads.delete(session_id)
    await asyncio.to_thread(ctx.uploads.remove, session_id)


async def _living(ctx: Context, tx: Transaction, session_id: str) -> UploadSession:
    session = await tx.uploads.find(session_id)
    if session is None or session.expires_at <= ctx.clock.now():
        raise NotFound(
            f"there is no upload {session_id}, or it expired: an upload is removed "
            f"{ctx.policy.upload_ttl_s / 3600:g} hours after its last chunk; start a new one"
        )
    return session


def _on_disk(chunks: list[UploadChunk], sizes: dict[int, int]) -> list[UploadChunk]:
    """A power cut may keep a row and lose its file: such a chunk has to be sent again."""
    return [chunk for chunk in chunks if sizes.get(chunk.number) == chunk.size]


def _check_digest(incoming: IncomingChunk, sha256: str | None) -> None:
    if sha256 is not None and sha256.lower() != incoming.sha256:
        raise Invalid(
            f"the chunk's SHA-256 is {incoming.sha256}, not the one that was sent with it; send the chunk again",
            reason=Reason.DIGEST_MISMATCH,
            field="sha256",
        )


def _model(session: UploadSession, sha256: str | None, ctx: Context) -> Model:
    now = ctx.clock.now()
    source = {
        "fileName": session.file_name,
        "fileExtension": str(session.extension),
        "sessionId": session.session_id,
        "chunks": str(session.total_chunks),
        **({"isAdapter": str(session.is_adapter).lower()} if session.is_adapter or session.is_whole else {}),
        **({"sha256": sha256.lower()} if sha256 else {}),
    }
    return Model(
        model_id=session.model_id,
        name=session.name,
        model_type=session.model_type,
        source=source,
        created_at=now,
        modified_at=now,
        base_model_id=session.base_model_id,
    )
