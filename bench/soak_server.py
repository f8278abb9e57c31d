"""The server under soak: a real `dockyard serve` on one port and one data directory, killed and started again.

Its API is spoken to here, patiently: whoever asks while it is down waits until it is back.
"""

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from bench.processes import BenchFailed, tail

DOCKYARD = str(Path(sys.executable).with_name("dockyard"))
START_S = 60.0
STOP_S = 60.0
JOB_S = 120.0
JOB_POLL_S = 0.1
RETRY_S = 0.02  # between two knocks at a door that is closed, as a client does


@dataclass
class Outage:
    """Monotonic instants: the signal was sent, the server could serve again."""

    killed_at: float
    back_at: float | None = None


class SoakServer:
    def __init__(self, folder: Path, *, patience: float = 1.0, environment: Mapping[str, str] | None = None) -> None:
        self.data_dir = folder / "data"
        self.log = folder / "server.log"
        self.key = f"kg-{uuid.uuid4()}-{uuid.uuid4()}"
        self.outages: list[Outage] = []
        self.starts_s: list[float] = []
        self.untouched = asyncio.Lock()  # hold it for what a kill of the server must not cut
        self._port = _port_that_stays_free()
        self._job_s = JOB_S * patience
        self._environment = dict(environment or {})
        self._process: asyncio.subprocess.Process | None = None
        self._session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def headers(self) -> dict[str, str]:
        return {"x-api-key": self.key}

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    # Its life

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start it; in the end nothing that belongs to its data directory runs any more."""
        connector = aiohttp.TCPConnector(force_close=True)  # none of ours among the descriptors that are counted
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as self._session:
            try:
                await self.start()
                yield
            finally:
                if self._process is not None:
                    await self._end(signal.SIGKILL)
                for worker in self.workers():
                    with contextlib.suppress(psutil.Error):
                        worker.kill()

    async def start(self) -> None:
        """Start it and wait until it serves."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DOCKYARD_")}
        began = time.monotonic()
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                DOCKYARD, "serve", "--port", str(self._port), "--data-dir", str(self.data_dir),
                env=environment | self._environment | {"DOCKYARD_ADMIN_KEY": self.key, "DOCKYARD_LOG_FORMAT": "json"},
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        while not await self._is_ready():
            if self._process.returncode is not None or time.monotonic() > began + START_S:
                raise BenchFailed(f"the server did not start:\n{tail(self.log)}")
            await asyncio.sleep(RETRY_S)
        self.starts_s.append(time.monotonic() - began)
        if self.outages:
            self.outages[-1].back_at = time.monotonic()

    async def kill(self) -> None:
        """`kill -9`."""
        self.outages.append(Outage(time.monotonic()))
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        return await self._end(signal.SIGTERM)

    def was_down(self, sent_at: float, failed_at: float) -> bool:
        """Whether a kill explains that a request which was sent then failed then."""
        return any(
            outage.killed_at <= failed_at and (outage.back_at is None or sent_at <= outage.back_at)
            for outage in self.outages
        )

    def workers(self) -> list[psutil.Process]:
        """Living processes of its data directory besides itself."""
        return list(_workers_of(self.data_dir))

    async def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        process, self._process = self._process, None
        process.send_signal(number)
        async with asyncio.timeout(STOP_S):
            return await process.wait()

    async def _is_ready(self) -> bool:
        assert self._session is not None
        try:
            async with self._session.get(f"{self.url}/readyz") as reply:
                return reply.status == 200
        except aiohttp.ClientConnectionError:
            return False

    # Its API

    async def get(self, path: str) -> Any:
        """The reply's JSON; asked again while the server is down."""
        while True:
            asked_at = time.monotonic()
            try:
                return await self._call("GET", path)
            except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
                if not self.was_down(asked_at, time.monotonic()):
                    raise
                await asyncio.sleep(RETRY_S)

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """The reply's JSON. The server is not killed meanwhile."""
        async with self.untouched:
            return await self._call("POST", path, body)

    async def job(self, accepted: dict[str, Any]) -> dict[str, Any]:
        """The job at its end, which must be a success."""
        path = f"/dock-status/{accepted['dockStatusId']}"
        try:
            async with asyncio.timeout(self._job_s):
                while True:
                    job = await self.get(path)
                    if job["status"] != "IN_PROGRESS":
                        break
                    await asyncio.sleep(JOB_POLL_S)
        except TimeoutError:
            raise BenchFailed(f"{path} was still in progress after {self._job_s:.0f} s:\n{tail(self.log)}") from None
        if job["status"] != "SUCCESS":
            raise BenchFailed(
                f"{job['action']} of {job['deploymentName']} ended with {job['reason']}: {job['message']}"
            )
        return job

    async def import_model(self, folder: Path) -> str:
        wish = {"name": folder.name, "modelType": "openSource", "source": {"path": str(folder)}}
        accepted = await self.post("/models", wish)
        await self.job(accepted)
        return accepted["modelId"]

    async def complete(self, body: dict[str, Any]) -> Any:
        """The reply's JSON, with nothing else going on."""
        assert self._session is not None
        async with self._session.post(f"{self.url}/v1/completions", headers=self.headers, json=body) as reply:
            if reply.status != 200:
                raise BenchFailed(f"a completion was answered {reply.status}: {await reply.text()}")
            return await reply.json()

    async def replicas(self, deployment_id: str) -> list[dict[str, Any]]:
        """The living ones, oldest first."""
        return (await self.get(f"/deployments/{deployment_id}/replicas"))["replicas"]

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        assert self._session is not None
        url = f"{self.url}/api/public{path}"
        async with self._session.request(method, url, headers=self.headers, json=body) as reply:
            if reply.status not in (200, 201):
                raise BenchFailed(f"{method} {path} was answered {reply.status}: {await reply.text()}")
            return await reply.json()


def _workers_of(data_dir: Path) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            of_dockyard = any(word in ("dockyard.worker", "dockyard.prepare") for word in command)
            if of_dockyard and any(word.startswith(str(data_dir)) for word in command):
                yield process


def _port_that_stays_free() -> int:
    """A port that the kernel gives to nobody while the server is down.

    Out of the ephemeral range, since a client that knocks at a closed port of that range may be given this very port as
    its own and then be connected to itself, and the server could not listen any more.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(lowest // 2, lowest), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise BenchFailed(f"no free port between {lowest // 2} and {lowest}")
