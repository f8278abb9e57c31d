"""The connections to replicas: one client session per address, kept alive, closed when the address is out of use."""

import asyncio

from aiohttp import (
    BaseConnector,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
    UnixConnector,
)
from yarl import URL

from dockyard.protocols.fleet import ReplicaAddress
from dockyard.protocols.generation import TOKEN_HEADER

CONNECT_S = 5.0
# Below the 5 s after which uvicorn closes an idle connection, so that the gateway is the one who closes first.
KEEP_ALIVE_S = 4.0


class Upstream:
    """A replica's address and the open connections to it."""

    __slots__ = ("_session", "_url", "address", "users")

    def __init__(self, address: ReplicaAddress) -> None:
        self.address = address
        self.users = 0
        self._session = ClientSession(
            connector=_connector(address),
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
            timeout=ClientTimeout(total=None, sock_connect=CONNECT_S),  # the request's own deadline bounds the rest
            headers={TOKEN_HEADER: address.token, "content-type": "application/json"},
            skip_auto_headers=("user-agent", "accept", "accept-encoding"),
        )
        self._url = URL(f"{(address.url or 'http://replica').rstrip('/')}/generate")

    async def generate(self, body: bytes) -> ClientResponse:
        """Send a `GenerateRequest`. Raises what aiohttp raises when the replica cannot be reached."""
        return await self._session.post(self._url, data=body, allow_redirects=False)

    async def close(self) -> None:
        await self._session.close()


class Upstreams:
    """All replicas' connections. `acquire` and `release` count the users of each."""

    def __init__(self) -> None:
        self._open: dict[ReplicaAddress, Upstream] = {}
        self._routed: dict[str, frozenset[ReplicaAddress]] = {}
        self._all_routed: frozenset[ReplicaAddress] = frozenset()
        self._closing: set[asyncio.Task[None]] = set()

    def set_routed(self, deployment_id: str, addresses: frozenset[ReplicaAddress]) -> None:
        """The addresses that a deployment's requests go to from now on; those it left close when they are idle."""
        left = self._routed.pop(deployment_id, frozenset()) - addresses
        if addresses:
            self._routed[deployment_id] = addresses
        self._all_routed = frozenset().union(*self._routed.values())
        for address in left:
            upstream = self._open.get(address)
            if upstream is not None and not upstream.users:
                self._close(upstream)

    def acquire(self, address: ReplicaAddress) -> Upstream:
        upstream = self._open.get(address)
        if upstream is None:
            upstream = self._open[address] = Upstream(address)
        upstream.users += 1
        return upstream

    def release(self, upstream: Upstream) -> None:
        upstream.users -= 1
        if not upstream.users and upstream.address not in self._all_routed:
            self._close(upstream)

    async def close(self) -> None:
        """Close every connection; a request that still runs on one breaks."""
        self._routed.clear()
        self._all_routed = frozenset()
        for upstream in list(self._open.values()):
            self._close(upstream)
        await asyncio.gather(*self._closing)

    def _close(self, upstream: Upstream) -> None:
        if self._open.pop(upstream.address, None) is None:
            return
        task = asyncio.get_running_loop().create_task(upstream.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _connector(address: ReplicaAddress) -> BaseConnector:
    if address.socket is not None:
        return UnixConnector(path=address.socket, limit=0, keepalive_timeout=KEEP_ALIVE_S)
    if address.url is not None:
        return TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S)
    raise ValueError("a replica's address needs a socket or a URL")
