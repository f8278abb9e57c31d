"""Who gets which request, and when."""

import asyncio
from typing import Any

import httpx
from starlette.responses import PlainTextResponse

from dockyard.front import Front


def saying(name: str) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse(f"{name} {scope['path']}")(scope, receive, send)

    return app


def client_of(front: Front) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(front), base_url="http://dockyard")


async def test_each_goes_to_its_own() -> None:
    front = Front(saying("gateway"))
    front.open(saying("api"))
    async with client_of(front) as client:
        for path in ("/v1/chat/completions", "/v2/chat/completions", "/v1/nope"):
            assert (await client.post(path)).text == f"gateway {path}"
        for path in ("/v1x", "/v3/chat/completions", "/api/public/v1/models", "/readyz"):
            assert (await client.get(path)).text == f"api {path}"


async def test_the_gateway_serves_while_the_api_is_still_coming() -> None:
    front = Front(saying("gateway"))
    async with client_of(front) as client:
        impatient, patient = (asyncio.create_task(client.get("/readyz")) for _ in range(2))
        assert (await client.get("/v1/models")).text == "gateway /v1/models"
        assert not impatient.done()
        impatient.cancel()
        front.open(saying("api"))
        assert (await patient).text == "api /readyz"
