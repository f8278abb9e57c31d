"""A control plane to try things on: real store, services and loops; a fake fleet, preparer and router."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dockyard.clock import SystemClock
from dockyard.domain.card import Family, ModelCard
from dockyard.domain.devices import GIB, Host
from dockyard.domain.ids import new_id
from dockyard.domain.lifecycle import ModelState
from dockyard.domain.model import Artifact, Model
from dockyard.domain.spec import DeploySpec, EngineName, HyperParameters, ModelType, Scaling
from dockyard.errors import DockyardError
from dockyard.fleets.fake import FakeFleet, FakeMachine
from dockyard.loops.exports import Exports
from dockyard.loops.prepare_jobs import PrepareJobs
from dockyard.loops.preparing import Preparations
from dockyard.loops.reconcile import Reconciler
from dockyard.loops.replicas import Replicas
from dockyard.protocols.fleet import RunningReplica
from dockyard.protocols.preparation import ConvertTask, ExportTask, Outcome, Progress, Task
from dockyard.protocols.routing import Route
from dockyard.services.context import Context, Policy
from dockyard.services.deploys import DeployWish
from dockyard.services.downloads import Downloads
from dockyard.services.keyring import LiveKeyring
from dockyard.store.database import Store
from dockyard.store.transaction import Transaction

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


class Died(BaseException):
    """The server was killed. No handler of ours may catch it."""


class CrashingStore(Store):
    """A store whose server dies right after the n-th commit, and stays dead; with 0 it never does."""

    def __init__(self, url: str, die_after: int = 0) -> None:
        super().__init__(url)
        self._left = die_after or None

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        if self._left == 0:
            raise Died
        async with super().transaction() as tx:
            yield tx
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                raise Died


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
        return engine != "vllm"

    def artifact_dir(self, key: str) -> str:
        return f"/artifacts/{key}"

    async def discard(self, key: str) -> int:
        self.discarded.append(key)
        return 10

    async def clean_scratch(self) -> None:
        return None

    def _key(self, source_key: str, engine: str, quantization: str) -> str:
        return source_key if engine == "transformers" else f"{source_key}+{engine}+{quantization}"


class RecordingRouter:
    """Keeps the routes; `running` says what each replica is busy with."""

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        self.running: dict[str, int] = {}

    def publish(self, route: Route) -> None:
        self.routes[route.deployment_id] = route

    def withdraw(self, deployment_id: str) -> None:
        self.routes.pop(deployment_id, None)

    def open_requests(self, replica_id: str) -> int:
        return self.running.get(replica_id, 0)

    async def drained(self, replica_id: str) -> None:
        return None


@dataclass
class Stage:
    ctx: Context
    fleet: FakeFleet
    preparer: FakePreparer
    router: RecordingRouter
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
        """Rounds until stops and drains have come to rest."""
        for _ in range(10):
            await self.round()

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


async def ready_model(stage: Stage, name: str = "m") -> Model:
    """A model in the state Ready to Deploy, as an import leaves it."""
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
    artifact = Artifact(
        key="weights", source_key=None, engine=None, quantization=None, size_bytes=1, created_at=now, last_used_at=now
    )
    async with stage.ctx.store.transaction() as tx:
        await tx.artifacts.put(artifact)
        await tx.models.add(model)
    return model


@contextlib.asynccontextmanager
async def open_stage(world: Any, store: Store, exports: Path = Path("/exports")) -> AsyncIterator[Stage]:
    """A server on `world` (its url, machine and artifacts). On leaving, its replicas run on, as after kill -9."""
    await store.open()
    clock = SystemClock()
    machine: FakeMachine = world.machine
    fleet = FakeFleet(clock, machine=machine, auto_ready=True)
    preparer, router = FakePreparer(world.artifacts), RecordingRouter()
    host = Host(cores=2, memory_bytes=8 * GIB, available_bytes=6 * GIB)
    ctx = Context(
        store=store,
        clock=clock,
        preparer=preparer,
        fleet=fleet,
        router=router,
        keyring=LiveKeyring(store, clock),
        downloads=Downloads(exports, b"secret", "http://test"),
        host=lambda: stage.host,
        policy=Policy(),
        wake=lambda: None,
    )
    prepare_jobs = PrepareJobs(ctx, "stage", [Exports(ctx, "/artifacts", "/scratch")])
    preparations, replicas = Preparations(ctx, "/artifacts", "/scratch"), Replicas(ctx, threads=None)
    reconciler = Reconciler(ctx, preparations, replicas, "http://test")
    stage = Stage(ctx, fleet, preparer, router, reconciler, replicas, preparations, prepare_jobs, host)
    async with store.reading() as tx:
        known = [
            RunningReplica(
                replica_id=replica.replica_id,
                token=replica.token,
                pid=replica.pid,
                process_started_at=replica.process_started_at or 0,
                socket=replica.socket or "",
            )
            for replica in await tx.replicas.living()
            if replica.pid is not None
        ]
    await fleet.open(known)
    try:
        yield stage
    finally:
        await prepare_jobs.close()
        await preparations.close()
        await replicas.close()
        await store.close()
