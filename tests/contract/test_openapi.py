"""The OpenAPI document against the implementation: whatever a client sends, the reply is one that it describes."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from tests.integration.api_rig import ApiRig, open_rig

from dockyard.api.app import describe
from dockyard.front import Front
from dockyard.gateway.app import Gateway

EXAMPLES = 15  # per operation, beside the systematic ones


class LiveApi:
    """The API with the gateway, on a port and in a thread of its own; `known`: the ids of what is there to be found."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="live api")
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.known: dict[str, str] = {}
        self.key = ""
        self.failure: BaseException | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator["LiveApi"]:
        self._thread.start()
        try:
            assert self._started.wait(30)
            if self.failure is not None:
                raise self.failure
            yield self
        finally:
            self._server.should_exit = True
            self._thread.join(30)
            self._listener.close()

    async def _serve(self) -> None:
        try:
            async with open_rig(self._directory) as rig:
                await self._furnish(rig)
                front = Front(Gateway(rig.ctx.keyring, rig.ctx.clock))
                front.open(rig.app)
                config = uvicorn.Config(front, log_config=None, access_log=False, lifespan="off", server_header=False)
                self._server = uvicorn.Server(config)
                self._server.capture_signals = contextlib.nullcontext  # pyright: ignore[reportAttributeAccessIssue]
                self._started.set()
                await self._server.serve(sockets=[self._listener])
        except BaseException as error:
            self.failure = error
            self._started.set()
            raise

    async def _furnish(self, rig: ApiRig) -> None:
        model = await rig.ready_model()
        job, version = await rig.deployed(model)
        await rig.with_replica(version)
        self.key = rig.key
        self.known = {
            "modelId": model.model_id,
            "deploymentId": version.deployment_id,
            "dockStatusId": job.job_id,
            "model": "Flan T5",
        }


schema = schemathesis.openapi.from_dict(describe())
# Keys have tests of their own, and unknown query parameters are ignored by design.
schema.config.generation.update(deterministic=True, with_security_parameters=False, allow_extra_parameters=False)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveApi]:
    with LiveApi(tmp_path_factory.mktemp("api")).running() as api:
        yield api


def aimed(case: schemathesis.Case, known: dict[str, str]) -> schemathesis.Case:
    """Two of three ids become those of things that are there; which ones, the generated value decides."""
    for name, value in case.path_parameters.items():
        if name in known and crc32(repr(value).encode()) % 3:
            case.path_parameters[name] = known[name]
    return case


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture],
)
def test_every_reply_is_described(case: schemathesis.Case, live: LiveApi) -> None:
    # A valid form may still be refused: minReplicas above maxReplicas, a path where nothing is, a strange cursor.
    aimed(case, live.known).call_and_validate(
        live.url, headers={"x-api-key": live.key}, excluded_checks=[positive_data_acceptance], timeout=30
    )
