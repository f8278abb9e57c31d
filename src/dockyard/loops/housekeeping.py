"""What is done now and then: keys kept fresh, their use written down, old rows of ended replicas removed."""

from datetime import timedelta

from dockyard.services.context import Context

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
