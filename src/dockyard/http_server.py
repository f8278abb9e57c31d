"""The HTTP server: uvicorn with an end of our own, on a port that is taken before anything else is started."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from dockyard.errors import Failed
from dockyard.gateway.http_protocol import HttpProtocol
from dockyard.settings import Settings

BACKLOG = 2048  # connections that may wait to be accepted


class HttpServer(uvicorn.Server):
    """uvicorn, except that the signals are ours: it would raise them again before the replicas are stopped.

    Nor does it end the drain: it would cancel the requests that are left, and their clients would hear nothing or 500.
    And it ticks once a second, for the date header, not ten times: the end is an event.
    """

    def __init__(self, app: ASGIApp, drain_timeout_s: float) -> None:
        config = uvicorn.Config(
            app,
            http=HttpProtocol,
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            proxy_headers=False,
        )
        super().__init__(config)
        self._drain_timeout_s = drain_timeout_s
        self._ending = asyncio.Event()

    async def main_loop(self) -> None:
        seconds = 0
        while not await self.on_tick(10 * seconds):  # uvicorn's ticks, of which every tenth renews the date
            seconds += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), 1.0)

    async def _wait_tasks_to_complete(self) -> None:
        """uvicorn's, without the wait for its closed listeners, which has no bound and may never end.

        A connection that was just being accepted when the others were told is told here.
        """
        while (self.server_state.connections or self.server_state.tasks) and not self.force_exit:
            for connection in list(self.server_state.connections):
                connection.shutdown()
            await asyncio.sleep(0.05)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def end(self) -> None:
        """First call: finish what runs, while `drain_timeout_s` lasts. Second: now."""
        if self.should_exit:
            self._force()
        else:
            self.should_exit = True
            self._ending.set()
            asyncio.get_running_loop().call_later(self._drain_timeout_s, self._force)

    def _force(self) -> None:
        """What still runs is broken off when the gateway closes."""
        self.force_exit = True


def bind(settings: Settings) -> socket.socket:
    """Listen before anything is started: a taken port costs nothing, and early requests wait instead of failing."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        other = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
        raise Failed(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; choose another {other}"
        ) from error
    listener.set_inheritable(False)
    return listener


def base_url_of(settings: Settings, listener: socket.socket) -> str:
    """How clients reach the server, for the URLs it replies with; a wildcard address is no address to call."""
    if settings.public_url:
        return settings.public_url.rstrip("/")
    named = socket.gethostname() if settings.host in ("0.0.0.0", "::") else settings.host
    host = f"[{named}]" if ":" in named else named
    return f"http://{host}:{listener.getsockname()[1]}"
