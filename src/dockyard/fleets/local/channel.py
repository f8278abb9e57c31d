"""How the fleet listens to one replica: `GET /watch` and `GET /health` over its Unix socket. Translates aiohttp."""

from collections.abc import AsyncGenerator

import aiohttp
import msgspec

from dockyard.errors import Reason, Unavailable
from dockyard.protocols.generation import TOKEN_HEADER, Health, decode_health

_NO_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=None, sock_read=None)
_BROKEN = (aiohttp.ClientError, OSError, TimeoutError, msgspec.MsgspecError, ValueError)


class Channel:
    """One client per replica: a connection that watches, another that probes."""

    def __init__(self, socket: str, token: str) -> None:
        self._session = aiohttp.ClientSession(
            base_url="http://replica",
            connector=aiohttp.UnixConnector(path=socket),
            headers={TOKEN_HEADER: token},
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def health(self, timeout_s: float) -> Health:
        """Ask once. Raises `Unavailable` when no proper answer comes; with TIMED_OUT if none at all in `timeout_s`."""
        try:
            timeout = aiohttp.ClientTimeout(total=timeout_s)
            async with self._session.get("/health", timeout=timeout, raise_for_status=_refuse) as response:
                return decode_health.decode(await response.read())
        except TimeoutError as error:
            message = f"the replica did not answer within {timeout_s:g} s"
            raise Unavailable(message, reason=Reason.TIMED_OUT) from error
        except _BROKEN as error:
            raise Unavailable(f"the replica did not answer: {error!r}") from error

    async def watch(self) -> AsyncGenerator[Health, None]:
        """What the replica tells of itself, at once and at each change, until it hangs up.

        Connecting waits for as long as the replica needs to come up. Raises `Unavailable` when the line breaks.
        """
        try:
            async with self._session.get("/watch", timeout=_NO_TIMEOUT, raise_for_status=_refuse) as response:
                async for line in response.content:
                    yield decode_health.decode(line)
        except _BROKEN as error:
            raise Unavailable(f"the replica hung up: {error!r}") from error

    async def close(self) -> None:
        await self._session.close()


async def _refuse(response: aiohttp.ClientResponse) -> None:
    """A replica that is loading, or that failed, may answer 503 with its health; a wrong token is no answer."""
    if response.status not in (200, 503):
        raise Unavailable(f"the replica answered {response.status}")
