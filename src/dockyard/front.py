"""The outermost ASGI app: what is for the gateway goes there at once, all else to the API, which may still be coming.

FastAPI and what it brings take 0.4 s to import. After a start, replicas that were adopted can answer in that time.
"""

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

GATEWAY_PATHS = ("/v1/", "/v2/")


class Front:
    """`open` says where the API is; requests to it wait until then."""

    def __init__(self, gateway: ASGIApp) -> None:
        self.gateway = gateway
        self._api: asyncio.Future[ASGIApp] = asyncio.get_running_loop().create_future()

    def open(self, api: ASGIApp) -> None:
        self._api.set_result(api)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(GATEWAY_PATHS):
            await self.gateway(scope, receive, send)
            return
        api = self._api.result() if self._api.done() else await asyncio.shield(self._api)
        await api(scope, receive, send)
