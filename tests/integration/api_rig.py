"""The API over a real store, stand-ins for fleet, preparer and router, and a client in the same process."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter
from tests.databases import migrated_sqlite

from dockyard.api.app import build_app
from dockyard.clock import SystemClock
from dockyard.domain.access import Scope
from dockyard.domain.card import Family, ModelCard
from dockyard.domain.deployment import Version
from dockyard.domain.devices import GIB, Host
from dockyard.domain.ids import new_id
from dockyard.domain.job import Job, advance, fail, succeed
from dockyard.domain.job import Phase as JobPhase
from dockyard.domain.lifecycle import ModelState, VersionState
from dockyard.domain.model import Artifact, Model
from dockyard.domain.replica import Replica
from dockyard.domain.spec import ModelType
from dockyard.errors import DockyardError, Reason
from dockyard.fleets.fake import FakeFleet
from dockyard.protocols.preparation import Outcome, Progress, Task
from dockyard.protocols.routing import Route
from dockyard.services.context import Context, Policy
from dockyard.services.downloads import Downloads
from dockyard.services.keyring import LiveKeyring
from dockyard.services.keys import create_app, create_key
from dockyard.services.upload_files import UploadFiles
from dockyard.store.database import Store

BASE = "/api/public"
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
)


class FakePreparer:
    """Has every artifact ready and every engine but those `absent`; `failure`: what looking for an artifact raises."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.absent: frozenset[str] = frozenset({"vllm"})

    async def run(self, task: Task, on_progress: Callable[[Progress], Awaitable[None]]) -> Outcome:
        raise NotImplementedError

    def cached(self, source_key: str, engine: str, quantization: str) -> str | None:
        if self.failure is not None:
            raise self.failure
        return source_key

    def installed(self, engine: str) -> bool:
        return self.version(engine) is not None

    def version(self, engine: str) -> str | None:
        return None if engine in self.absent else "1.0"

    def without_gpus(self, engine: str) -> str | None:
        return None

    def artifact_dir(self, key: str) -> str:
        return f"/artifacts/{key}"

    async def stored(self) -> Mapping[str, int]:
        return {}

    async def discard(self, key: str) -> int:
        return 10

    async def clean_scratch(self) -> None:
        return None


class FakeRouter:
    """Keeps the routes, and the ids of what was withdrawn."""

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        self.withdrawn: list[str] = []

    def published(self) -> Mapping[str, Route]:
        return self.routes

    def publish(self, route: Route) -> None:
        self.routes[route.deployment_id] = route

    def withdraw(self, deployment_id: str, refusal: DockyardError | None = None) -> None:
        self.withdrawn.append(deployment_id)
        self.routes.pop(deployment_id, None)

    def open_requests(self, replica_id: str) -> int:
        return 0

    async def drained(self, replica_id: str) -> None:
        return None


@dataclass
class ApiRig:
    """`client` carries `key`, which may do everything; `ready` is what /readyz is told."""

    ctx: Context
    app: FastAPI
    client: httpx.AsyncClient
    key: str
    fleet: FakeFleet
    preparer: FakePreparer
    router: FakeRouter
    wakes: list[None]
    ready: bool = True
    host: Host = field(default_factory=lambda: Host(cores=2, memory_bytes=8 * GIB, available_bytes=6 * GIB))

    async def key_with(self, scopes: Iterable[Scope]) -> str:
        """A key of a new app with these scopes."""
        every = frozenset(Scope)
        app = await create_app(self.ctx, "test", list(scopes), granted_by=every)
        _, secret = await create_key(self.ctx, "test", app_id=app.app_id, granted_by=every)
        return secret

    async def inference_key(self, deployment_id: str) -> str:
        _, secret = await create_key(self.ctx, "test", deployment_id=deployment_id)
        return secret

    async def ready_model(self, model_type: ModelType = ModelType.OPEN_SOURCE, **changes: Any) -> Model:
        """A model as an import leaves it."""
        now = self.ctx.clock.now()
        model = Model(
            model_id=new_id("cm"),
            name="Flan T5",
            model_type=model_type,
            source={"path": "/somewhere"},
            created_at=now,
            modified_at=now,
            state=ModelState.READY,
            artifact_key="weights",
            card=CARD,
        )
        model = replace(model, **changes)
        weights = Artifact(
            key="weights",
            source_key=None,
            engine=None,
            quantization=None,
            size_bytes=1,
            created_at=now,
            last_used_at=now,
        )
        async with self.ctx.store.transaction() as tx:
            await tx.artifacts.put(weights)
            await tx.models.add(model)
        return model

    async def deployed(self, model: Model, name: str = "Flan T5") -> tuple[Job, Version]:
        """What a deploy leaves when all went well: the job, which is done, and the version, which serves."""
        reply = await self.deploy(model, name=name)
        assert reply.status_code == 200, reply.text
        async with self.ctx.store.transaction() as tx:
            now = self.ctx.clock.now()
            job = await tx.jobs.get(reply.json()["dockStatusId"])
            job = await tx.jobs.save(succeed(advance(job, JobPhase.LOADING, "loading", now), "it serves", now, {}))
            [version] = [v for v in await tx.versions.live() if v.version_id == job.version_id]
            for state in (VersionState.DEPLOYING, VersionState.DEPLOYED):
                version = await tx.transition(version, state, reason="TEST", message="", actor="test", now=now)
        return job, version

    async def failed(self, deployment_id: str, number: int) -> None:
        """What a deploy leaves that could not start."""
        now = self.ctx.clock.now()
        async with self.ctx.store.transaction() as tx:
            [version] = [v for v in await tx.versions.of_deployment(deployment_id) if v.number == number]
            version = replace(version, reason=Reason.ENGINE_CRASHED, message="it crashed")
            await tx.transition(version, VersionState.FAILED, reason="TEST", message="", actor="test", now=now)
            job = await tx.jobs.get(version.job_id)
            await tx.jobs.save(fail(job, Reason.ENGINE_CRASHED, "it crashed", now))

    async def with_replica(self, version: Version, **fields: Any) -> Replica:
        now = self.ctx.clock.now()
        replica = Replica(
            replica_id=new_id("rp"),
            version_id=version.version_id,
            deployment_id=version.deployment_id,
            token="secret",
            created_at=now,
            modified_at=now,
            **fields,
        )
        async with self.ctx.store.transaction() as tx:
            await tx.replicas.add(replica)
        return replica

    async def deploy(self, model: Model | str, query: str = "modelType=openSource", **changes: Any) -> httpx.Response:
        """Deploy with the published body, `changes` applied."""
        model_id = model if isinstance(model, str) else model.model_id
        return await self.client.post(f"{BASE}/models/{model_id}/deploy?{query}", json={**published_body(), **changes})


def published_body() -> dict[str, Any]:
    """The sample of the published page, as printed."""
    return {
        "name": "Flant5_model",
        "hyperParameters": {"temperature": 1, "maxTokens": 512, "topP": 1, "topK": 50, "stopSequence": []},
        "scalingParameters": {
            "maxBatchSize": 10,
            "minReplicas": 1,
            "maxReplicas": 2,
            "scaleUpDelay": 30,
            "scaleDownDelay": 600,
        },
        "deviceType": "g5.xlarge",
        "optimizationInfo": {"optimizationType": "", "quantizationType": ""},
        "isDeployedPreviously": True,
    }


@contextlib.asynccontextmanager
async def open_rig(directory: Path, *, policy: Policy | None = None) -> AsyncIterator[ApiRig]:
    """The API on a database of its own."""
    store = Store(migrated_sqlite(directory / "dockyard.db"))
    await store.open()
    try:
        clock = SystemClock()
        fleet, preparer, router = FakeFleet(clock), FakePreparer(), FakeRouter()
        wakes: list[None] = []
        ctx = Context(
            store=store,
            clock=clock,
            preparer=preparer,
            fleet=fleet,
            router=router,
            keyring=LiveKeyring(store, clock),
            downloads=Downloads(directory / "exports", b"secret", "http://dockyard"),
            uploads=UploadFiles(directory / "uploads"),
            host=lambda: rig.host,
            policy=policy or Policy(),
            wake=lambda: wakes.append(None),
        )
        metrics = CollectorRegistry()
        Counter("dockyard_test", "A counter for the test.", registry=metrics).inc()
        app = build_app(ctx, ready=lambda: rig.ready, metrics=metrics)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://dockyard") as client:
            rig = ApiRig(ctx, app, client, "", fleet, preparer, router, wakes)
            rig.key = client.headers["x-api-key"] = await rig.key_with(Scope)
            yield rig
    finally:
        await store.close()


def problems(reply: httpx.Response) -> list[tuple[str | None, str]]:
    """(field, reason) of each entry of an error; checks its shape on the way."""
    document = reply.json()
    assert document.keys() == {"errors"}
    for entry in document["errors"]:
        assert entry.keys() == {"msg", "code", "reason", "field"}
        assert entry["code"] == reply.status_code
        assert entry["msg"]
    return [(entry["field"], entry["reason"]) for entry in document["errors"]]


def message(reply: httpx.Response) -> str:
    """The sentence of the only entry of an error."""
    [entry] = reply.json()["errors"]
    return entry["msg"]
