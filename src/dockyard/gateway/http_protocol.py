"""uvicorn's HTTP protocol, except in how replies are written and in how a connection ends with the server.

uvicorn writes head and body apart. The second write costs the server as much as the first, and wakes the client twice:
here what a reply writes in one step of the loop goes out in one system call.

And uvicorn closes a kept connection at once when the server ends, in the face of a request that is on its way: here it
lingers, and a request that comes is answered, with `Connection: close`.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LINGER_S = 0.25  # more than a round trip: what a client sent before it could know has come by then
MOST_BYTES = 1 << 16  # gathered at once; beyond it the transport must see them, to tell when the client is too slow


class HttpProtocol(HttpToolsProtocol):
    """For `uvicorn.Config(http=…)`."""

    _ending = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = cast(asyncio.Transport, Gathering(transport))

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self._ending:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """The server ends: one more reply at most. Idempotent."""
        if self._ending:
            return
        self._ending = True
        if self.cycle is not None:
            self.cycle.keep_alive = False
        self.loop.call_later(LINGER_S, self._close_if_idle)

    def _close_if_idle(self) -> None:
        """A request that is being answered closes the connection itself; a head that is still incomplete does not."""
        if (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing():
            self.transport.close()


class Gathering:
    """A transport that keeps what is written until the loop's next step. All else is the transport's own."""

    __slots__ = ("_bytes", "_loop", "_parts", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._parts: list[bytes] = []
        self._bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)
        self._bytes += len(data)
        if self._bytes > MOST_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            data = b"".join(self._parts)
            self._parts.clear()
            self._bytes = 0
            self._transport.write(data)
