"""A gateway that listens, doubles behind it, keys, and a client: what every gateway test starts from."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import openai
from prometheus_client import CollectorRegistry
from tests.integration.replica_double import ReplicaDouble, serve, served_double

from dockyard.clock import SystemClock
from dockyard.domain.access import Scope
from dockyard.domain.autoscaling import Demand
from dockyard.domain.spec import HyperParameters
from dockyard.gateway.app import Gateway
from dockyard.gateway.http_protocol import HttpProtocol
from dockyard.protocols.fleet import ReplicaAddress
from dockyard.protocols.routing import Principal, Route, RouteReplica

ADMIN = "kg-admin"
VIEWER = "kg-viewer"
OF_SHIP = "kg-of-ship"

SHIP = Route(
    deployment_id="dp-ship",
    model_id="cm-1",
    name="Ship 1",
    version_id="vr-1",
    version_name="Ship 1",
    engine="echo",
    hyper=HyperParameters(temperature=0.5, max_tokens=16, top_p=0.9, top_k=40, stop=("END",)),
    endpoint_timeout_s=30,
    created_at=datetime(2026, 2, 5, tzinfo=UTC),
    replicas=(),
)
BOAT = replace(SHIP, deployment_id="dp-boat", name="Boat", version_id="vr-2")


class Keys:
    """Three keys: all may be done, nothing may be inferred, one deployment may be used."""

    def __init__(self) -> None:
        self.known = {
            ADMIN: Principal(key_id="ak-1", scopes=frozenset(Scope)),
            VIEWER: Principal(key_id="ak-2", scopes=frozenset({Scope.VIEW})),
            OF_SHIP: Principal(key_id="ak-3", scopes=frozenset(), deployment_id=SHIP.deployment_id),
        }

    def find(self, key: str) -> Principal | None:
        return self.known.get(key)


class Loads:
    """Every load of SHIP that was told, and a way to wait for one."""

    def __init__(self) -> None:
        self.told: list[Demand] = [Demand(0, 0)]
        self._changed = asyncio.Event()

    def __call__(self, deployment_id: str, load: Demand) -> None:
        assert deployment_id == SHIP.deployment_id
        assert load != self.told[-1]
        self.told.append(load)
        self._changed.set()

    async def until(self, queued: int, in_flight: int) -> None:
        while self.told[-1] != Demand(queued, in_flight):
            self._changed.clear()
            await self._changed.wait()


class Rig:
    """`double()` adds a replica of SHIP; `publish()` routes to all that were added."""

    def __init__(self, stack: AsyncExitStack, directory: Path, gateway: Gateway, registry: CollectorRegistry) -> None:
        self._stack = stack
        self._directory = directory
        self.gateway = gateway
        self.registry = registry
        self.replicas: list[RouteReplica] = []
        self.base_url = ""

    async def double(self, words: int = 8, capacity: int = 4) -> ReplicaDouble:
        name = f"r{len(self.replicas)}"
        double, address = await self._stack.enter_async_context(served_double(self._directory, name, words))
        self.add(name, address, capacity)
        return double

    def add(self, name: str, address: ReplicaAddress, capacity: int = 4) -> None:
        self.replicas.append(RouteReplica(replica_id=name, address=address, capacity=capacity))

    def publish(self, route: Route = SHIP, **changes: Any) -> None:
        self.gateway.publish(replace(route, **{"replicas": tuple(self.replicas), **changes}))

    def openai(self, key: str = ADMIN) -> openai.AsyncOpenAI:
        client = openai.AsyncOpenAI(api_key=key, base_url=f"{self.base_url}/v1", max_retries=0)
        self._stack.push_async_callback(client.close)
        return client

    def http(self, key: str | None = ADMIN) -> httpx.AsyncClient:
        headers = {"X-API-Key": key} if key is not None else {}
        client = httpx.AsyncClient(base_url=self.base_url, headers=headers, timeout=30)
        self._stack.push_async_callback(client.aclose)
        return client

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@contextlib.asynccontextmanager
async def rigged(directory: Path, **options: Any) -> AsyncIterator[Rig]:
    registry = CollectorRegistry()
    gateway = Gateway(Keys(), SystemClock(), registry=registry, **options)
    async with AsyncExitStack() as stack:
        rig = Rig(stack, directory, gateway, registry)
        served = await stack.enter_async_context(serve(gateway, http=HttpProtocol))
        stack.push_async_callback(gateway.close)
        rig.base_url = f"http://127.0.0.1:{served.port}"
        yield rig


def events_of(body: str) -> Iterator[str]:
    """The payloads of server-sent events."""
    for line in body.split("\n\n"):
        if line:
            assert line.startswith("data: ")
            yield line[len("data: ") :]
