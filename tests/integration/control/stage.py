"""A control plane to try things on: real store, services and loops; a fake fleet, preparer and router."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.databases import migrated_sqlite
from tests.integration.control.world import Watch, WatchedStore, World

from dockyard.clock import SystemClock
from dockyard.domain.autoscaling import Demand
from dockyard.domain.card import Family, ModelCard
from dockyard.domain.devices import GIB, Host
from dockyard.domain.ids import new_id
from dockyard.domain.lifecycle import ModelState
from dockyard.domain.model import Artifact, Model
from dockyard.domain.spec import DeploySpec, EngineName, HyperParameters, ModelType, Scaling
from dockyard.errors import DockyardError
from dockyard.fleets.fake import FakeFleet
from dockyard.loops.autoscale import Autoscaler
from dockyard.loops.exports import Exports
from dockyard.loops.prepare_jobs import PrepareJobs
from dockyard.loops.preparing import Preparations
from dockyard.loops.reconcile import Reconciler
from dockyard.loops.replicas import Replicas
from dockyard.protocols.fleet import RunningReplica
from dockyard.protocols.preparation import ConvertTask, ExportTask, Outcome, Progress, Task
from dockyard.protocols.routing import Route
from dockyard.services.context import Context, Policy
from dockyard.services.deploy_checks import DeployWish
from dockyard.services.downloads import Downloads
from dockyard.services.keyring import LiveKeyring
from dockyard.services.upload_files import UploadFiles

CARD = ModelCard(
    architecture="LlamaForCausalLM",
    model_type="llama",
    family=Family.DECODER,
    parameters=1_000_000,
    weights_bytes=4_000_000,
    dtype="float32",
    context_length=256,
    vocab_size=1000,
    layers=2,
    kv_bytes_per_token=64,
    eos_token_ids=(0,),
)


class FakePreparer:
    """Makes artifacts and archives in no time. `artifacts` outlives the server; `refusal` is raised instead.

    With `held` set an export waits for it, half done.
    """

    def __init__(self, artifacts: set[str]) -> None:
        self.artifacts = artifacts
        self.refusal: DockyardError | None = None
        self.discarded: list[str] = []
        self.held: asyncio.Event | None = None
        self.halfway = asyncio.Event()

    async def run(self, task: Task, on_progress: Callable[[Progress], Awaitable[None]]) -> Outcome:
        if isinstance(task, ExportTask):
            return await self._export(task, on_progress)
        assert isinstance(task, ConvertTask)
        await on_progress(Progress(phase="OPTIMIZING", share=0.5, message="half way"))
        if self.refusal is not None:
            raise self.refusal
        key = self._key(task.source_key, task.engine, task.quantization)
        self.artifacts.add(key)
        return Outcome(key=key, size_bytes=10)

    async def _export(self, task: ExportTask, on_progress: Callable[[Progress], Awaitable[None]]) -> Outcome:
        await on_progress(Progress(phase="COPYING", share=0.5, message="half way"))
        self.halfway.set()
        if self.held is not None:
            await self.held.wait()
        if self.refusal is not None:
            raise self.refusal
        Path(task.archive).parent.mkdir(exist_ok=True)
        Path(task.archive).write_text("an archive")
        return Outcome(key=task.source_key, size_bytes=10, sha256="0" * 64)

    def cached(self, source_key: str, engine: str, quantization: str) -> str | None:
        key = self._key(source_key, engine, quantization)
        return key if key in self.artifacts or key == source_key else None

    def installed(self, engine: str) -> bool:
        return self.version(engine) is not None

    def version(self, engine: str) -> str | None:
        return None if engine == "vllm" else "1.0"

    def without_gpus(self, engine: str) -> str | None:
        return None

    def artifact_dir(self, key: str) -> str:
        return f"/artifacts/{key}"

    async def stored(self) -> Mapping[str, int]:
        return dict.fromkeys(self.artifacts, 10)

    async def discard(self, key: str) -> int:
        self.discarded.append(key)
        self.artifacts.discard(key)
        return 10

    async def clean_scratch(self) -> None:
        return None

    def _key(self, source_key: str, engine: str, quantization: str) -> str:
        return source_key if engine in ("transformers", "vllm") else f"{source_key}+{engine}+{quantization}"


class RecordingRouter:
    """Keeps the routes; `running` says what each replica is busy with."""

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        self.running: dict[str, int] = {}

    def published(self) -> Mapping[str, Route]:
        return self.routes

    def publish(self, route: Route) -> None:
        self.routes[route.deployment_id] = route

    def withdraw(self, deployment_id: str, refusal: DockyardError | None = None) -> None:
        self.routes.pop(deployment_id, None)

    def open_requests(self, replica_id: str) -> int:
        return self.running.get(replica_id, 0)

    async def drained(self, replica_id: str) -> None:
        return None


@dataclass
class Stage:
    ctx: Context
    store: WatchedStore
    fleet: FakeFleet
    preparer: FakePreparer
    router: RecordingRouter
    autoscaler: Autoscaler
    reconciler: Reconciler
    replicas: Replicas
    preparations: Preparations
    prepare_jobs: PrepareJobs
    host: Host

    async def round(self) -> None:
        """One round of the loops, and everything that they began in the background."""
        await self.reconciler.work()
        await self.prepare_jobs.work()
        await self.quiet()

    async def settle(self) -> None:
        """Rounds until stops and drains have come to rest: two in a row wrote nothing."""
        for _ in range(5):
            before = self.store.commits
            await self.round()
            await self.round()
            if self.store.commits == before:
                return

    async def quiet(self) -> None:
        background = ("stop ", "drain ", "prepare ", "export ")
        await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name().startswith(background)))


def a_wish(name: str = "chat", *, optimization: bool = False, **scaling: Any) -> DeployWish:
    return DeployWish(
        name=name,
        model_type=ModelType.OPEN_SOURCE,
        spec=DeploySpec(
            hyper=HyperParameters(temperature=1, max_tokens=16, top_p=1, top_k=50),
            device_type="g5.xlarge",
            scaling=Scaling(**scaling),
            optimization=EngineName.CTRANSLATE2 if optimization else None,
        ),
    )


async def ready_model(stage: Stage, name: str = "m", **changes: Any) -> Model:
    """A model in the state Ready to Deploy, as an import leaves it but for `changes`."""
    now = stage.ctx.clock.now()
    model = Model(
        model_id=new_id("cm"),
        name=name,
        model_type=ModelType.OPEN_SOURCE,
        source={"path": "/somewhere"},
        created_at=now,
        modified_at=now,
        state=ModelState.READY,
        artifact_key="weights",
        card=CARD,
    )
    model = replace(model, **changes)
    artifact = Artifact(
        key=model.artifact_key or "",
        source_key=None,
        engine=None,
        quantization=None,
        size_bytes=1,
        created_at=now,
        last_used_at=now,
    )
    async with stage.ctx.store.transaction() as tx:
        await tx.artifacts.put(artifact)
        await tx.models.add(model)
    return model


@contextlib.asynccontextmanager
async def open_stage(world: World, watch: Watch = lambda _: None) -> AsyncIterator[Stage]:
    """A server on `world`. On leaving, its replicas run on, as after kill -9."""
    if not world.database.exists():
        migrated_sqlite(world.database)
    store = WatchedStore(f"sqlite:///{world.database}", watch)
    await store.open()
    clock = SystemClock()
    fleet = FakeFleet(
        clock, machine=world.machine, auto_ready=True, gpu_reader=world.gpus, gpu_patience=world.gpu_patience
    )
    preparer, router = FakePreparer(world.artifacts), RecordingRouter()
    host = Host(cores=2, memory_bytes=8 * GIB, available_bytes=6 * GIB)
    ctx = Context(
        store=store,
        clock=clock,
        preparer=preparer,
        fleet=fleet,
        router=router,
        keyring=LiveKeyring(store, clock),
        downloads=Downloads(world.exports, b"secret", "http://test"),
        uploads=UploadFiles(world.folder / "uploads"),
        host=lambda: replace(stage.host, gpus=fleet.gpus.seen()),
        policy=Policy(),
        wake=lambda: None,
    )
    prepare_jobs = PrepareJobs(ctx, "stage", [Exports(ctx, "/artifacts", "/scratch")])
    preparations, replicas = Preparations(ctx, "/artifacts", "/scratch"), Replicas(ctx, threads=None)
    autoscaler = Autoscaler(clock, lambda deployment_id: Demand(0, 0))
    reconciler = Reconciler(ctx, preparations, replicas, autoscaler, "http://test")
    stage = Stage(
        ctx, store, fleet, preparer, router, autoscaler, reconciler, replicas, preparations, prepare_jobs, host
    )
    async with store.reading() as tx:
        known = [
            RunningReplica(
                replica_id=replica.replica_id,
                token=replica.token,
                pid=replica.pid,
                process_started_at=replica.process_started_at or 0,
                socket=replica.socket or "",
                gpus=replica.gpus,
                engine_group=replica.engine_group,
                version_id=replica.version_id,
            )
            for replica in await tx.replicas.living()
            if replica.pid is not None
        ]
    await fleet.open(known)
    try:
        yield stage
    finally:
        autoscaler.close()
        await prepare_jobs.close()
        await preparations.close()
        await replicas.close()
        await fleet.gpus.close()
        await store.close()
