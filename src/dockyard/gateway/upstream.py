"""The replicas' addresses and the kept connections to each, closed when an address is out of use."""

import asyncio
import ssl
from urllib.parse import urlsplit

from dockyard.gateway.connection import Connection
from dockyard.protocols.fleet import ReplicaAddress
from dockyard.protocols.generation import TOKEN_HEADER

CONNECT_S = 5.0
# Below the 5 s after which a plain uvicorn behind a URL closes an idle connection, so that few requests meet one that
# is just being closed. Local replicas keep theirs for a day.
KEEP_ALIVE_S = 4.0
ERROR_BODY_BYTES = 1 << 16


class Reply:
    """A replica's answer, being read. Close it in every case."""

    __slots__ = ("_connection", "_upstream", "status")

    def __init__(self, upstream: "Upstream", connection: Connection, status: int) -> None:
        self._upstream = upstream
        self._connection = connection
        self.status = status

    async def read(self) -> bytes:
        """Some bytes as they come; empty at the end. Raises `ConnectionBroken`."""
        return await self._connection.read()

    async def read_all(self) -> bytes:
        """The rest, of which no more than is fit for an error message."""
        body = b""
        while len(body) < ERROR_BODY_BYTES and (part := await self._connection.read()):
            body += part
        return body

    def close(self) -> None:
        """Keep the connection if the reply was read to its end; else drop it, which aborts the request."""
        self._upstream.give_back(self._connection)


class Upstream:
    """A replica's address and the connections to it."""

    __slots__ = ("_head", "_idle", "_tls", "_url", "address", "users")

    def __init__(self, address: ReplicaAddress) -> None:
        self.address = address
        self.users = 0
        self._idle: list[Connection] = []
        if address.socket is None and address.url is None:
            raise ValueError("a replica's address needs a socket or a URL")
        self._url = urlsplit(address.url or "http://replica")
        self._tls = ssl.create_default_context() if self._url.scheme == "https" else None
        self._head = (
            f"POST {self._url.path.rstrip('/')}/generate HTTP/1.1\r\nhost: {self._url.netloc}\r\n"
            f"{TOKEN_HEADER}: {address.token}\r\ncontent-type: application/json\r\ncontent-length: "
        ).encode("ascii")

    async def generate(self, body: bytes) -> Reply:
        """Send a `GenerateRequest`. Raises `OSError` when no connection can be made, `ConnectionBroken` after that."""
        connection = self._kept() or await self._connect()
        try:
            return Reply(self, connection, await connection.send(b"%b%d\r\n\r\n%b" % (self._head, len(body), body)))
        except BaseException:
            connection.abort()
            raise

    def give_back(self, connection: Connection) -> None:
        if connection.reusable:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.abort()

    def close(self) -> None:
        for connection in self._idle:
            connection.abort()
        self._idle.clear()

    def _kept(self) -> Connection | None:
        """The connection that was used last, so that those of a past peak grow old."""
        oldest = asyncio.get_running_loop().time() - KEEP_ALIVE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable and connection.idle_since > oldest:
                return connection
            connection.abort()
        return None

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_S):
            if self.address.socket is not None:
                _, connection = await loop.create_unix_connection(Connection, self.address.socket)
            else:
                port = self._url.port or (443 if self._tls else 80)
                _, connection = await loop.create_connection(Connection, self._url.hostname or "", port, ssl=self._tls)
        return connection


class Upstreams:
    """All replicas' connections. `acquire` and `release` count the users of each."""

    def __init__(self) -> None:
        self._open: dict[ReplicaAddress, Upstream] = {}
        self._routed: dict[str, frozenset[ReplicaAddress]] = {}
        self._all_routed: frozenset[ReplicaAddress] = frozenset()

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

    def close(self) -> None:
        """Close what is idle now, and the rest as it becomes so."""
        self._routed.clear()
        self._all_routed = frozenset()
        for upstream in list(self._open.values()):
            if not upstream.users:
                self._close(upstream)

    def _close(self, upstream: Upstream) -> None:
        self._open.pop(upstream.address, None)
        upstream.close()
