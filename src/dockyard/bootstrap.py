"""Puts the server together: the only place that names concrete classes and reads settings."""

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import structlog
import uvicorn
from prometheus_client import CollectorRegistry

from dockyard.api.app import build_app
from dockyard.clock import SystemClock
from dockyard.domain.access import KEY_FORM, new_key
from dockyard.errors import Conflict, Failed, Invalid
from dockyard.fleets.local.fleet import LocalFleet
from dockyard.fleets.local.host import host_now
from dockyard.gateway.app import Gateway
from dockyard.logs import configure_logs
from dockyard.loops.base import Loop, LoopMetrics
from dockyard.loops.exports import Exports, remove_expired_archives
from dockyard.loops.housekeeping import forget_ended_replicas, keep_keys_fresh
from dockyard.loops.imports import Imports
from dockyard.loops.observe import observe_replicas, settle_after_restart
from dockyard.loops.prepare_jobs import PrepareJobs
from dockyard.loops.preparing import Preparations
from dockyard.loops.reconcile import Reconciler
from dockyard.loops.replicas import Replicas
from dockyard.prepare.runner import ProcessPreparer
from dockyard.protocols.fleet import RunningReplica
from dockyard.services.context import Context, Policy
from dockyard.services.downloads import Downloads, read_signing_key
from dockyard.services.keyring import LiveKeyring
from dockyard.services.keys import ensure_admin_key
from dockyard.settings import Settings
from dockyard.store.database import Store

log = structlog.get_logger()

RECONCILE_INTERVAL_S = 5.0  # at the latest; everything that matters wakes the loop
# A key revoked here is refused at once. Only a database that others write to needs a look, to do so within a second.
SHARED_KEYS_INTERVAL_S = 0.5
OWN_KEYS_INTERVAL_S = 5.0
HOUSEKEEPING_INTERVAL_S = 3600.0
BACKLOG = 2048  # connections that may wait to be accepted


@dataclass(frozen=True, slots=True)
class Paths:
    """The data directory. `artifacts`, `scratch` and `exports` share a file system: a rename finishes what is made."""

    data: Path

    @property
    def artifacts(self) -> Path:
        return self.data / "artifacts"

    @property
    def scratch(self) -> Path:
        return self.data / "scratch"

    @property
    def exports(self) -> Path:
        return self.data / "exports"

    @property
    def run(self) -> Path:
        return self.data / "run"

    @property
    def admin_key(self) -> Path:
        return self.data / "admin-key"

    @property
    def signing_key(self) -> Path:
        return self.data / "signing-key"

    @property
    def lock(self) -> Path:
        return self.data / "lock"

    def make(self) -> None:
        for path in (self.data, self.artifacts, self.scratch, self.exports, self.run):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)


def serve(settings: Settings) -> None:
    """Run the server until SIGTERM or SIGINT, which drain it.

    Raises `DockyardError` when it cannot start: the data directory is in use, the port taken, the database away.
    """
    configure_logs(settings.log_format, settings.log_level)
    paths = Paths(settings.data_dir.expanduser().resolve())
    try:
        paths.make()
    except OSError as error:
        raise Invalid(f"the data directory {paths.data} cannot be made: {error.strerror}", field="data_dir") from error
    with _locked(paths.lock), contextlib.closing(_bind(settings)) as listener:
        uvicorn_loop = uvicorn.Config("", loop="auto").get_loop_factory()
        with asyncio.Runner(loop_factory=uvicorn_loop) as runner:
            runner.run(_serve(settings, paths, listener))


async def _serve(settings: Settings, paths: Paths, listener: socket.socket) -> None:
    base_url = _base_url(settings, listener)
    registry = CollectorRegistry()
    async with _context(settings, paths, base_url, registry) as (ctx, gateway, start_loops):
        await _ensure_admin_key(ctx, settings, paths)
        async with start_loops() as ready:
            app = build_app(ctx, ready=ready, metrics=registry, gateway=gateway)
            config = uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=int(settings.drain_timeout_s),
            )
            server = _Server(config)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, server.end)
            port = listener.getsockname()[1]  # a public URL does not tell it
            log.info("dockyard serves", url=base_url, port=port, data_dir=str(paths.data), pid=os.getpid())
            await server.serve(sockets=[listener])
            log.info("dockyard stops: requests have ended, replicas follow")


class _Server(uvicorn.Server):
    """uvicorn, except that the signals are ours: it would raise them again before the replicas are stopped."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def end(self) -> None:
        """First call: finish what runs. Second: now."""
        self.force_exit = self.should_exit
        self.should_exit = True


@contextlib.asynccontextmanager
async def _context(
    settings: Settings, paths: Paths, base_url: str, registry: CollectorRegistry
) -> AsyncIterator[tuple[Context, Gateway, Callable[[], contextlib.AbstractAsyncContextManager[Callable[[], bool]]]]]:
    """Everything that the use cases need, opened in order and closed in reverse."""
    clock = SystemClock()
    downloads = Downloads(paths.exports, read_signing_key(paths.signing_key), base_url)
    store = Store(settings.store_url)
    await store.open()
    preparer = ProcessPreparer(paths.artifacts, paths.scratch)
    await preparer.clean_scratch()
    fleet = LocalFleet(paths.run, clock)
    keyring = LiveKeyring(store, clock)
    gateway = Gateway(keyring, clock, queue_limit=settings.queue_limit, registry=registry)
    wakes: list[Callable[[], None]] = []

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
        host=host_now,
        policy=Policy(
            strict_devices=settings.devices == "strict",
            delay_unit_ms=1000 if settings.scale_delay_unit == "s" else 1,
            import_roots=settings.import_roots,
            loopback=settings.on_loopback,
        ),
        wake=wake,
    )

    def start_loops() -> contextlib.AbstractAsyncContextManager[Callable[[], bool]]:
        return _loops(ctx, settings, paths, LoopMetrics(registry), wakes, base_url)

    try:
        await fleet.open(await _known_replicas(ctx))
        await settle_after_restart(ctx)
        async with store.transaction() as tx:
            await tx.jobs.release(None)  # the lock on the data directory proves that no other server holds one
        await keyring.refresh()
        yield ctx, gateway, start_loops
    finally:
        await gateway.close()
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
    base_url: str,
) -> AsyncIterator[Callable[[], bool]]:
    """Start the loops; yields a function that tells whether the first look at everything is done."""
    places = {"artifacts_dir": str(paths.artifacts), "scratch_dir": str(paths.scratch)}
    preparations = Preparations(ctx, **places)
    replicas = Replicas(ctx, settings.threads)
    reconciler = Reconciler(ctx, preparations, replicas, base_url)
    errands = (Imports(ctx, **places), Exports(ctx, **places))
    prepare_jobs = PrepareJobs(ctx, f"{os.getpid()}@{socket.gethostname()}", errands)
    await reconciler.work()  # before the first request: adopted replicas are routed to at once
    keys_interval_s = SHARED_KEYS_INTERVAL_S if settings.database_url else OWN_KEYS_INTERVAL_S
    loops = (
        Loop("reconcile", reconciler.work, RECONCILE_INTERVAL_S, metrics),
        Loop("prepare jobs", prepare_jobs.work, RECONCILE_INTERVAL_S, metrics),
        Loop("keys", lambda: keep_keys_fresh(ctx), keys_interval_s, metrics),
        Loop("housekeeping", lambda: forget_ended_replicas(ctx), HOUSEKEEPING_INTERVAL_S, metrics),
        Loop("archives", lambda: remove_expired_archives(ctx), HOUSEKEEPING_INTERVAL_S, metrics),
    )
    wakes.extend(loop.wake for loop in loops[:2])
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
        )
        for replica in living
        if replica.pid is not None and replica.process_started_at is not None and replica.socket is not None
    ]


async def _ensure_admin_key(ctx: Context, settings: Settings, paths: Paths) -> None:
    """The key of the first start: from the setting, else from its file, else a new one, printed this once."""
    file = paths.admin_key
    secret = settings.admin_key or _kept_key(file)
    if secret is None:
        secret = new_key()
        _write_private(file, secret + "\n")
        sys.stdout.write(f"The management key, shown this once and kept in {file}:\n{secret}\n")
        sys.stdout.flush()
    if not await ensure_admin_key(ctx, secret):  # no reason not to serve: other keys manage the server
        log.warning(
            "the management key was revoked and opens nothing",
            kept_in="DOCKYARD_ADMIN_KEY" if settings.admin_key else str(file),
        )


def _kept_key(file: Path) -> str | None:
    """The key in the file; None if there is none, or the first start was cut off before it was written."""
    try:
        text = file.read_bytes().decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Invalid(f"{file} cannot be read: {error.strerror}", field="data_dir") from error
    if text and not KEY_FORM.match(text):
        raise Invalid(f"{file} holds no key; remove it, and the next start makes a new one", field="data_dir")
    return text or None


def _write_private(file: Path, text: str) -> None:
    try:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600), "w") as out:
            os.fchmod(out.fileno(), 0o600)  # an empty file that was there keeps its own mode
            out.write(text)
    except OSError as error:
        raise _not_writable(file, error) from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[TextIO]:
    """Hold the data directory. The kernel lets go when the process ends, however it ends."""
    try:
        file = path.open("a+")
    except OSError as error:
        raise _not_writable(path, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Conflict(
                f"another dockyard serves from {path.parent}; stop it, or choose another --data-dir"
            ) from error
        os.chmod(path, stat.S_IRUSR | stat.S_IWUSR)
        yield file


def _not_writable(path: Path, error: OSError) -> Invalid:
    return Invalid(
        f"{path} cannot be written: {error.strerror}; let the server's user write there, or choose another --data-dir",
        field="data_dir",
    )


def _bind(settings: Settings) -> socket.socket:
    """Listen before anything is started: a taken port costs nothing, and early requests wait instead of failing."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        other = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
        raise Failed(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; choose another {other}"
        ) from error
    listener.set_inheritable(False)
    return listener


def _base_url(settings: Settings, listener: socket.socket) -> str:
    if settings.public_url:
        return settings.public_url.rstrip("/")
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{listener.getsockname()[1]}"
