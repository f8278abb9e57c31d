"""Serves the app on an inherited socket with uvicorn's HTTP protocol, without uvicorn's signals and ticking loop."""

import asyncio
import socket
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

# The gateway keeps connections open and reuses them; the one that closes them must not be this side, or a request
# could meet a connection that is just being closed.
_KEEP_ALIVE_S = 24 * 3600


class SocketServer:
    def __init__(self, app: Any) -> None:
        self._config = Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
        )
        self._config.load()
        self._state = ServerState()
        self._all_closed = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def open(self, listening: socket.socket) -> None:
        """Accept connections, those included that came before this process could."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._protocol, sock=listening, backlog=1024)

    async def close(self, *, grace_s: float) -> None:
        """Stop accepting, finish the replies under way, close what is idle; wait `grace_s` at most."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.connections:
            try:
                await asyncio.wait_for(self._all_closed.wait(), grace_s)
            except TimeoutError:
                return  # a client that does not read must not keep the process

    def _protocol(self) -> HttpToolsProtocol:
        return _Connection(self._config, self._state, self._all_closed)


class _Connection(HttpToolsProtocol):
    def __init__(self, config: Config, state: ServerState, all_closed: asyncio.Event) -> None:
        super().__init__(config=config, server_state=state, app_state={})
        self._all_closed = all_closed

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self.connections:
            self._all_closed.set()
