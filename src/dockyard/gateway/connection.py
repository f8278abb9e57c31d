"""One kept connection to a replica: a request out, its reply in as the bytes come. HTTP/1.1 by llhttp (httptools).

Between the gateway and a replica there is one route, one method, no redirect, no cookie, no compression. What a general
HTTP client does for all the rest costs 60 µs of CPU a request (aiohttp); this costs 7.
"""

import asyncio

import httptools

HIGH_WATER_BYTES = 1 << 18  # unread bytes at which the replica is told to wait


class ConnectionBroken(ConnectionError):
    """The connection ended before the reply did. `unused`: it had served before, and not one byte came on it now."""

    def __init__(self, message: str, *, unused: bool) -> None:
        super().__init__(message)
        self.unused = unused


class Connection(asyncio.Protocol):
    """At most one request at a time."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._served = 0
        self._expecting = False
        self._begin()

    def _begin(self) -> None:
        self.status = 0  # of the reply
        self._chunks: list[bytes] = []
        self._unread = 0
        self._complete = False
        self._lost: str | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def reusable(self) -> bool:
        """The last reply was read to its end and the replica keeps the connection."""
        return self._complete and self._transport is not None and not self._transport.is_closing()

    async def send(self, head_and_body: bytes) -> None:
        """Send a request and wait for the head of its reply: `status` is known then. Raises `ConnectionBroken`."""
        self._begin()
        if self._transport is None:
            raise self._broken("closed by the replica")
        self._expecting = True
        self._transport.write(head_and_body)
        while not self.status:
            await self._more()

    async def read(self) -> bytes:
        """What came since the last call, waiting for it if need be; empty at the end. Raises `ConnectionBroken`."""
        while not self._chunks:
            if self._complete:
                return b""
            await self._more()
        chunks, self._chunks = self._chunks, []
        if self._unread > HIGH_WATER_BYTES and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        self._unread = 0
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def read_all(self, most: int) -> bytes:
        """The rest, of which no more than some `most` bytes."""
        body = b""
        while len(body) < most and (part := await self.read()):
            body += part
        return body

    def abort(self) -> None:
        """Drop the connection, which aborts what the replica does for it."""
        if self._transport is not None:
            self._transport.abort()

    async def _more(self) -> None:
        if self._lost is not None:
            raise self._broken(self._lost)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _broken(self, why: str) -> ConnectionBroken:
        return ConnectionBroken(why, unused=self._served > 0 and not self.status)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._lost = f"no HTTP: {error}"
            self.abort()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        del self._parser  # it holds this, too: without a cycle both are gone at once
        self._lost = self._lost or str(exc or "closed by the replica")
        self._wake()

    # Called by the parser

    def on_message_begin(self) -> None:
        if not self._expecting:
            self.abort()  # nobody asked: whatever it answers, it must not be taken for the next reply
        self._expecting = False

    def on_headers_complete(self) -> None:
        if not self._complete:
            self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if self._complete:
            return
        self._chunks.append(body)
        before = self._unread
        self._unread += len(body)
        if before <= HIGH_WATER_BYTES < self._unread and self._transport is not None:
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        self._complete = True
        self._served += 1
        if not self._parser.should_keep_alive() and self._transport is not None:
            self._transport.close()
