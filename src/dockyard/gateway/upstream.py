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


class Upstream:
    """A replica's address and the connections to it."""

    __slots__ = ("_busy", "_head", "_idle", "_loop", "_sweep", "_tls", "_url", "address", "users")

    def __init__(self, address: ReplicaAddress) -> None:
        self.address = address
        self.users = 0
        self._loop = asyncio.get_running_loop()
        self._idle: list[Connection] = []  # in the order in which they became so
        self._sweep: asyncio.TimerHandle | None = None
        self._busy: set[Connection] = set()
        if address.socket is None and address.url is None:
            raise ValueError("a replica's address needs a socket or a URL")
        self._url = urlsplit(address.url or "http://replica")
        self._tls = ssl.create_default_context() if self._url.scheme == "https" else None
        self._head = (
            f"POST {self._url.path.rstrip('/')}/generate HTTP/1.1\r\nhost: {self._url.netloc}\r\n"
            f"{TOKEN_HEADER}: {address.token}\r\ncontent-type: application/json\r\ncontent-length: "
        ).encode("ascii")

    async def generate(self, body: bytes) -> Connection:
        """Send a `GenerateRequest`; the connection that its reply comes on, to be given back in every case.

        Raises `OSError` when no connection can be made, `ConnectionBroken` after that.
        """
        connection = self._kept() or await self._connect()
        self._busy.add(connection)
        try:
            await connection.send(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
        except BaseException:
            self._busy.discard(connection)
            connection.abort()
            raise
        return connection

    def give_back(self, connection: Connection) -> None:
        """Keep it if the reply was read to its end; else drop it, which aborts the request."""
        self._busy.discard(connection)
        if connection.reusable:
            connection.idle_since = self._loop.time()
            self._idle.append(connection)
            if self._sweep is None:
                self._sweep = self._loop.call_later(KEEP_ALIVE_S, self._close_old)
        else:
            connection.abort()

    def close(self) -> None:
        for connection in self._idle:
            connection.abort()
        self._idle.clear()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    def _close_old(self) -> None:
        """Connections of a past peak do not stay open. Once none is kept, nothing wakes up any more."""
        oldest = self._loop.time() - KEEP_ALIVE_S
        young = [connection for connection in self._idle if connection.reusable and connection.idle_since > oldest]
        for connection in set(self._idle).difference(young):
            connection.abort()
        self._idle = young
        self._sweep = self._loop.call_at(young[0].idle_since + KEEP_ALIVE_S, self._close_old) if young else None

    def break_off(self) -> None:
        """Abort what runs, too: whoever reads gets `ConnectionBroken`."""
        for connection in self._busy:
            connection.abort()

    def _kept(self) -> Connection | None:
        """The connection that was used last, so that those of a past peak grow old."""
        if not self._idle:
            return None
        oldest = self._loop.time() - KEEP_ALIVE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable and connection.idle_since > oldest:
                return connection
            connection.abort()
        return None

    async def _connect(self) -> Connection:
        loop = self._loop
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
        """Close everything, also under those who still read."""
        self._routed.clear()
        self._all_routed = frozenset()
        for upstream in list(self._open.values()):
            upstream.break_off()
            if not upstream.users:
                self._close(upstream)

    def _close(self, upstream: Upstream) -> None:
        self._open.pop(upstream.address, None)
        upstream.close()
