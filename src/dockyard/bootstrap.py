"""Puts the server together: the only place that names concrete classes and reads settings."""

import asyncio
import contextlib
import os
import shlex
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable

import structlog
import uvicorn
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from dockyard.clock import SystemClock
from dockyard.data_dir import Paths, locked, read_kept_key, write_private
from dockyard.domain.access import new_key
from dockyard.domain.autoscaling import Demand
from dockyard.engine_environments import EngineEnvironments
from dockyard.fleets.local.fleet import LocalFleet
from dockyard.fleets.local.nvml import Nvml
from dockyard.fleets.local.replica import Patience
from dockyard.front import Front
from dockyard.gateway.app import Gateway
from dockyard.http_server import HttpServer, base_url_of, bind
from dockyard.logs import configure_logs
from dockyard.loops.autoscale import Autoscaler
from dockyard.loops.base import Loop, LoopMetrics
from dockyard.loops.exports import Exports, remove_expired_archives
from dockyard.loops.housekeeping import forget_ended_replicas, keep_keys_fresh, remove_expired_uploads, tidy_memory
from dockyard.loops.imports import Imports
from dockyard.loops.observe import observe_replicas, settle_after_restart
from dockyard.loops.prepare_jobs import PrepareJobs
from dockyard.loops.preparing import Preparations
from dockyard.loops.reconcile import Reconciler
from dockyard.loops.replicas import Replicas
from dockyard.prepare.runner import ProcessPreparer
from dockyard.process_memory import set_aside, use_one_heap
from dockyard.protocols.fleet import RunningReplica
from dockyard.protocols.gpus import NoGpus
from dockyard.services.context import Context, Policy
from dockyard.services.downloads import Downloads, read_signing_key
from dockyard.services.keyring import LiveKeyring
from dockyard.services.keys import ensure_admin_key
from dockyard.services.upload_files import UploadFiles
from dockyard.settings import Settings
from dockyard.store.database import Store

log = structlog.get_logger()

RECONCILE_INTERVAL_S = 30.0  # at the latest; everything that matters wakes the loop
# A key revoked here is refused at once. Only a database that others write to needs a look, to do so within a second.
SHARED_KEYS_INTERVAL_S = 0.5
OWN_KEYS_INTERVAL_S = 5.0
HOUSEKEEPING_INTERVAL_S = 3600.0
FORGET_INTERVAL_S = 60.0
TIDY_INTERVAL_S = 60.0


def serve(settings: Settings) -> None:
    """Run the server until SIGTERM or SIGINT, which drain it.

    Raises `DockyardError` when it cannot start: the data directory is in use, the port taken, the database away.
    """
    use_one_heap()
    configure_logs(settings.log_format, settings.log_level)
    paths = Paths(settings.data_dir.expanduser().resolve())
    paths.make()
    with locked(paths.lock), contextlib.closing(bind(settings)) as listener:
        uvicorn_loop = uvicorn.Config("", loop="auto", log_config=None).get_loop_factory()
        with asyncio.Runner(loop_factory=uvicorn_loop) as runner:
            runner.run(_serve(settings, paths, listener))


async def _serve(settings: Settings, paths: Paths, listener: socket.socket) -> None:
    base_url = base_url_of(settings, listener)
    registry = CollectorRegistry()
    port = listener.getsockname()[1]  # a public URL does not tell it; an early end closes the listener
    async with _context(settings, paths, base_url, registry) as (ctx, gateway, start_loops):
        await _ensure_admin_key(ctx, settings, paths, base_url)
        async with start_loops() as ready:
            front = Front(gateway)
            server = HttpServer(front, settings.drain_timeout_s)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, server.end)
            serving = asyncio.create_task(server.serve(sockets=[listener]), name="http server")
            try:
                front.open(await asyncio.to_thread(_api, ctx, ready, registry))
            except BaseException:
                server.end()
                raise
            else:
                set_aside()
                log.info("dockyard serves", url=base_url, port=port, data_dir=str(paths.data), pid=os.getpid())
            finally:
                await serving
            log.info("dockyard stops: requests have ended, replicas follow")


def _api(ctx: Context, ready: Callable[[], bool], registry: CollectorRegistry) -> ASGIApp:
    """Imported here, on a thread: replicas that were adopted serve meanwhile."""
    from dockyard.api.app import build_app

    return build_app(ctx, ready=ready, metrics=registry)


@contextlib.asynccontextmanager
async def _context(
    settings: Settings, paths: Paths, base_url: str, registry: CollectorRegistry
) -> AsyncIterator[tuple[Context, Gateway, Callable[[], contextlib.AbstractAsyncContextManager[Callable[[], bool]]]]]:
    """Everything that the use cases need, opened in order and closed in reverse."""
    clock = SystemClock()
    downloads = Downloads(paths.exports, read_signing_key(paths.signing_key), base_url)
    uploads = UploadFiles(paths.uploads)
    uploads.remove_halves()
    store = Store(settings.store_url)
    await store.open()
    own = {"vllm": settings.vllm_python} if settings.vllm_python else {}
    environments = EngineEnvironments(paths.engines, own)
    preparer = ProcessPreparer(
        paths.artifacts,
        paths.scratch,
        elsewhere=environments.version_of,
        elsewhere_without_gpus=environments.without_gpus,
    )
    await preparer.clean_scratch()
    gpus = NoGpus() if settings.devices == "cpu" else Nvml(visible=os.environ.get("CUDA_VISIBLE_DEVICES"))
    fleet = LocalFleet(
        paths.run,
        clock,
        patience=Patience(start_timeout_s=settings.start_timeout_s),
        warm_spares=settings.warm_spares,
        elsewhere=environments.command_of,
        gpus=gpus,
    )
    keyring = LiveKeyring(store, clock)
    wakes: list[Callable[[], None]] = []

    def on_load(deployment_id: str, demand: Demand) -> None:  # the autoscaler asks the gateway, and is told by it
        autoscaler.note(deployment_id, demand)

    gateway = Gateway(keyring, clock, queue_limit=settings.queue_limit, registry=registry, on_load=on_load)
    autoscaler = Autoscaler(clock, gateway.load)

    def wake() -> None:
        for wake_one in wakes:
            wake_one()

    ctx = Context(
        store=store,
        clock=clock,
        preparer=preparer,
        fleet=fleet,
        router=gateway,
        keyring=keyring,
        downloads=downloads,
        uploads=uploads,
        host=fleet.host,
        policy=Policy(
            strict_devices=settings.devices == "strict",
            delay_unit_ms=1000 if settings.scale_delay_unit == "s" else 1,
            import_roots=settings.import_roots,
            loopback=settings.on_loopback,
            upload_ttl_s=settings.upload_ttl_s,
        ),
        wake=wake,
    )

    def start_loops() -> contextlib.AbstractAsyncContextManager[Callable[[], bool]]:
        return _loops(ctx, settings, paths, LoopMetrics(registry), wakes, autoscaler, base_url)

    try:
        await fleet.open(await _known_replicas(ctx))
        await settle_after_restart(ctx)
        async with store.transaction() as tx:
            await tx.jobs.release(None)  # the lock on the data directory proves that no other server holds one
        await keyring.refresh()
        yield ctx, gateway, start_loops
    finally:
        await gateway.close()
        autoscaler.close()
        await fleet.close(stop_replicas=True)
        await observe_replicas(ctx)
        await store.close()


@contextlib.asynccontextmanager
async def _loops(
    ctx: Context,
    settings: Settings,
    paths: Paths,
    metrics: LoopMetrics,
    wakes: list[Callable[[], None]],
    autoscaler: Autoscaler,
    base_url: str,
) -> AsyncIterator[Callable[[], bool]]:
    """Start the loops; yields a function that tells whether the first look at everything is done."""
    places = {"artifacts_dir": str(paths.artifacts), "scratch_dir": str(paths.scratch)}
    preparations = Preparations(ctx, **places)
    replicas = Replicas(ctx, settings.threads)
    reconciler = Reconciler(ctx, preparations, replicas, autoscaler, base_url)
    imports = Imports(ctx, **places, downloads_dir=str(paths.downloads))
    await imports.remove_orphans()
    errands = (imports, Exports(ctx, **places))
    prepare_jobs = PrepareJobs(ctx, f"{os.getpid()}@{socket.gethostname()}", errands)
    await reconciler.work()  # before the first request: adopted replicas are routed to at once
    keys_interval_s = SHARED_KEYS_INTERVAL_S if settings.database_url else OWN_KEYS_INTERVAL_S
    uploads_interval_s = min(HOUSEKEEPING_INTERVAL_S, settings.upload_ttl_s)
    loops = (
        Loop("reconcile", reconciler.work_due, RECONCILE_INTERVAL_S, metrics),
        Loop("prepare jobs", prepare_jobs.work, RECONCILE_INTERVAL_S, metrics),
        Loop("keys", lambda: keep_keys_fresh(ctx), keys_interval_s, metrics),
        Loop("housekeeping", lambda: forget_ended_replicas(ctx), FORGET_INTERVAL_S, metrics),
        Loop("memory", tidy_memory, TIDY_INTERVAL_S, metrics),
        Loop("archives", lambda: remove_expired_archives(ctx), HOUSEKEEPING_INTERVAL_S, metrics),
        Loop("uploads", lambda: remove_expired_uploads(ctx), uploads_interval_s, metrics),
    )

    def look_at(deployment_id: str) -> None:
        reconciler.look_at(deployment_id)
        loops[0].wake()

    wakes.extend((reconciler.look_at_all, *(loop.wake for loop in loops[:2])))
    autoscaler.wake = look_at
    for loop in loops:
        loop.start()
    watcher = asyncio.create_task(_wake_on_change(ctx, loops[0]), name="watch fleet")
    try:
        yield lambda: True
    finally:
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher
        for loop in loops:
            await loop.stop()
        await prepare_jobs.close()
        await preparations.close()
        await replicas.close()
        await ctx.keyring.flush_used()


async def _wake_on_change(ctx: Context, loop: Loop) -> None:
    while True:
        await ctx.fleet.changed.wait()
        ctx.fleet.changed.clear()
        loop.wake()


async def _known_replicas(ctx: Context) -> list[RunningReplica]:
    async with ctx.store.reading() as tx:
        living = await tx.replicas.living()
    return [
        RunningReplica(
            replica_id=replica.replica_id,
            token=replica.token,
            pid=replica.pid,
            process_started_at=replica.process_started_at,
            socket=replica.socket,
            gpus=replica.gpus,
            engine_group=replica.engine_group,
            version_id=replica.version_id,
        )
        for replica in living
        if replica.pid is not None and replica.process_started_at is not None and replica.socket is not None
    ]


async def _ensure_admin_key(ctx: Context, settings: Settings, paths: Paths, base_url: str) -> None:
    """The key of the first start: from the setting, else from its file, else a new one, printed this once."""
    file = paths.admin_key
    secret = settings.admin_key or read_kept_key(file)
    if secret is None:
        secret = new_key()
        write_private(file, secret + "\n")
        sys.stdout.write(f"The management key, shown this once and kept in {file}:\n{secret}\n")
        given = f"DOCKYARD_URL={base_url} DOCKYARD_API_KEY=$(cat {shlex.quote(str(file))})"
        sys.stdout.write(f"To go on, in another terminal:\n  export {given}\n  dockyard models import SOURCE\n")
        sys.stdout.flush()
    if not await ensure_admin_key(ctx, secret):  # no reason not to serve: other keys manage the server
        log.warning(
            "the management key was revoked and opens nothing",
            kept_in="DOCKYARD_ADMIN_KEY" if settings.admin_key else str(file),
        )
