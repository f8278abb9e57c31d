"""What is done now and then: keys kept fresh, their use written down, old rows of ended replicas removed."""

from datetime import timedelta

from dockyard.services.context import Context

KEEP_ENDED_REPLICAS = timedelta(days=7)


async def keep_keys_fresh(ctx: Context) -> float | None:
    """Another process on the same database may have revoked a key: it is refused here within the loop's interval."""
    await ctx.keyring.refresh()
    await ctx.keyring.flush_used()
    return None


async def forget_ended_replicas(ctx: Context) -> float | None:
    """Drop rows and logs of replicas that ended long ago."""
    before = ctx.clock.now() - KEEP_ENDED_REPLICAS
    async with ctx.store.transaction() as tx:
        ended = await tx.replicas.ended_before(before)
        await tx.replicas.delete_ended_before(before)
    for replica in ended:
        ctx.fleet.forget(replica.replica_id)
    return None
