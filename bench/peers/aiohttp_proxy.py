"""A bare proxy in front of one of Dockyard's replicas with the echo engine: Starlette, uvicorn and aiohttp's client.

It forwards a body and the reply to it. No key, no limits, no failover, no accounting: what two hops cost at least.
"""

import argparse
import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import uvicorn
from bench.replicas import TOKEN, serving, worker_spec
from bench.server import echo_model
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dockyard.clock import SystemClock
from dockyard.fleets.local.fleet import LocalFleet
from dockyard.protocols.fleet import ReplicaAddress
from dockyard.protocols.generation import TOKEN_HEADER

BATCH = 64


async def serve(port: int) -> None:
    with tempfile.TemporaryDirectory(prefix="dockyard-bench-") as folder:
        async with _replica(Path(folder)) as address:
            connector = aiohttp.UnixConnector(address.socket or "", limit=BATCH)
            async with aiohttp.ClientSession(connector=connector) as session:
                server = _Server(uvicorn.Config(_app(session), port=port, log_level="warning", access_log=False))
                for number in (signal.SIGTERM, signal.SIGINT):
                    asyncio.get_running_loop().add_signal_handler(number, server.end)
                await server.serve()


class _Server(uvicorn.Server):
    def end(self) -> None:
        self.should_exit = True

    def install_signal_handlers(self) -> None: ...


def _app(session: aiohttp.ClientSession) -> Starlette:
    headers = {TOKEN_HEADER: TOKEN, "content-type": "application/json"}

    async def forward(request: Request) -> Response:
        body = await request.body()
        async with session.post("http://replica/generate", data=body, headers=headers) as reply:
            return Response(await reply.read(), status_code=reply.status)

    async def ready(_: Request) -> Response:
        return Response(b"ready")

    return Starlette(routes=[Route("/", forward, methods=["POST"]), Route("/readyz", ready)])


@asynccontextmanager
async def _replica(folder: Path) -> AsyncIterator[ReplicaAddress]:
    model = echo_model(folder / "echo")
    spec = worker_spec("echo", model, model, batch=BATCH, threads=1, context_length=4096, eos_token_ids=[256])
    fleet = LocalFleet(folder / "run", SystemClock())
    await fleet.open([])
    try:
        yield (await serving(fleet, spec)).address
    finally:
        await fleet.close(stop_replicas=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    with asyncio.Runner(loop_factory=uvicorn.Config("", loop="uvloop").get_loop_factory()) as runner:
        runner.run(serve(parser.parse_args().port))
