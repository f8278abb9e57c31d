"""What is done now and then: keys kept fresh, their use written down; old rows and uploads, memory freed."""

import asyncio
from datetime import timedelta

from dockyard.process_memory import collect, give_back_freed
from dockyard.services.context import Context
from dockyard.store.transaction import Transaction

KEEP_ENDED_REPLICAS = timedelta(days=7)
# … and of each deployment no more than these: one that scales up and down every ten seconds ends 8,640 a day, each of
# which would cost 40 µs in every look at the deployment, 9 KiB of memory and a file.
KEEP_NEWEST_ENDED = 50


async def keep_keys_fresh(ctx: Context) -> float | None:
    """Another process on the same database may have revoked a key: it is refused here within the loop's interval."""
    await ctx.keyring.refresh()
    await ctx.keyring.flush_used()
    return None


async def forget_ended_replicas(ctx: Context) -> float | None:
    """Drop rows and logs of replicas that ended long ago, or since when many others have."""
    before = ctx.clock.now() - KEEP_ENDED_REPLICAS
    async with ctx.store.reading() as tx:
        ended = [*await tx.replicas.ended_before(before), *await tx.replicas.ended_beyond(KEEP_NEWEST_ENDED)]
    if ended:  # a quiet round takes no writer's turn
        async with ctx.store.transaction() as tx:
            for replica in ended:
                await tx.replicas.delete(replica.replica_id)
    for replica in ended:
        ctx.fleet.forget(replica.replica_id)
    return None


async def tidy_memory() -> float | None:
    """Free what only cycles hold, and give back to the system what is free."""
    collect()
    await asyncio.to_thread(give_back_freed)
    return None


async def remove_expired_uploads(ctx: Context) -> float | None:
    """Remove sessions whose time is over, and files that no session owns; returns the seconds until the next one."""
    now = ctx.clock.now()
    async with ctx.store.reading() as tx:
        expired = await tx.uploads.expired(now)
    for session in expired:
        async with ctx.store.transaction() as tx:
            await _forget(tx, session.session_id, ctx)
    stored = await asyncio.to_thread(ctx.uploads.stored)  # before the rows: a session begun meanwhile has its row
    async with ctx.store.reading() as tx:
        known = await tx.uploads.jobs_by_session()
        needed = {session_id for session_id, job_id in known.items() if not await _ended(tx, job_id)}
        upcoming = await tx.uploads.next_expiry()
    for session_id in stored - needed:
        await asyncio.to_thread(ctx.uploads.remove, session_id)
    return None if upcoming is None else max(1.0, (upcoming - now).total_seconds())


async def _forget(tx: Transaction, session_id: str, ctx: Context) -> None:
    """Drop the session, unless a chunk has prolonged it meanwhile or its import still reads the chunks."""
    session = await tx.uploads.find(session_id)
    if session is None or session.expires_at > ctx.clock.now():
        return
    if session.job_id is None or await _ended(tx, session.job_id):
        await tx.uploads.delete(session_id)


async def _ended(tx: Transaction, job_id: str | None) -> bool:
    """Whether there was an import that reads the chunks, and it is over."""
    job = await tx.jobs.find(job_id) if job_id else None
    return job.ended if job else job_id is not None
