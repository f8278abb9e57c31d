"""The soak's clients: seeded load in bursts and quiet times, and what became of each request.

A client is stubborn as clients are: refused with Retry-After it waits and tries again, cut off it tries again. But an
answer that is wrong, or an error while the server ran, is a lost request, and is kept with its id and its reason.
"""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from bench.soak_answers import Ask, StreamCheck, Wrong, check_whole
from bench.soak_server import SoakServer

PATIENCE_S = 100.0  # longer than the endpoint timeout: a client that gives up first would hide a 504
KNOCK_S = 0.05  # until a client tries again after a connection error
KEEP_ALIVE_S = 2.0  # below the 5 s after which the server closes an idle connection


@dataclass(frozen=True)
class Segment:
    """`clients` send `count` requests one after the other, then nobody sends for `pause_s`."""

    clients: int
    count: int
    pause_s: float


@dataclass(frozen=True)
class Lost:
    request_id: str
    reason: str
    at_s: float

    def __str__(self) -> str:
        return f"lost {self.request_id} at {self.at_s:.1f} s: {self.reason}"


@dataclass
class Tally:
    """What became of the requests. `cut` and `refused` were tried again and are not counted as answered for it."""

    answered: int = 0
    streamed: int = 0
    cut: int = 0  # by a kill of the server: a connection error, after a true beginning or nothing
    unreachable: int = 0  # connection refused while the server was down
    refused: Counter[str] = field(default_factory=Counter[str])  # with Retry-After, by status and code
    lost: list[Lost] = field(default_factory=list[Lost])
    slowest_s: float = 0.0


class _Again(Exception):
    """The client is to try again after `after_s`."""

    def __init__(self, after_s: float) -> None:
        self.after_s = after_s


class Clients:
    """Sends requests and keeps the tally. `on_begin` is told the number of each request as it is first sent."""

    def __init__(self, server: SoakServer, on_begin: Callable[[int], None]) -> None:
        self.tally = Tally()
        self._server = server
        self._on_begin = on_begin
        self._began_at = time.monotonic()

    async def run(self, segments: Sequence[Segment], asks: Iterator[Ask]) -> None:
        """One segment after the other; connections are closed at the end."""
        async with _session() as session:
            for segment in segments:
                mine = list(itertools.islice(asks, segment.count))
                todo = iter(mine)
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(segment.clients, len(mine))):
                        group.create_task(self._client(session, todo))
                await asyncio.sleep(segment.pause_s)

    async def _client(self, session: aiohttp.ClientSession, todo: Iterator[Ask]) -> None:
        for ask in todo:
            self._on_begin(ask.number)
            await self._answered(session, ask)

    async def _answered(self, session: aiohttp.ClientSession, ask: Ask) -> None:
        """Try until there is an answer, right or wrong."""
        attempt = 0
        while True:
            attempt += 1
            request_id = f"soak-{ask.number}-{attempt}"
            sent_at = time.monotonic()
            try:
                await self._attempt(session, ask, request_id, sent_at)
            except _Again as again:
                await asyncio.sleep(again.after_s)
                continue
            except (Wrong, TimeoutError, aiohttp.ClientError) as error:
                at_s = time.monotonic() - self._began_at
                self.tally.lost.append(Lost(request_id, str(error) or type(error).__name__, at_s))
                return
            self.tally.answered += 1
            self.tally.streamed += ask.streams
            self.tally.slowest_s = max(self.tally.slowest_s, time.monotonic() - sent_at)
            return

    async def _attempt(self, session: aiohttp.ClientSession, ask: Ask, request_id: str, sent_at: float) -> None:
        """Raises `_Again` where the rules allow a client to be sent away; any other error is a loss."""
        headers = self._server.headers | {"x-request-id": request_id}
        check = StreamCheck(ask)
        try:
            async with session.post(f"{self._server.url}/v1/completions", json=ask.body, headers=headers) as reply:
                if reply.status != 200:
                    await self._refused(reply, sent_at)
                if ask.streams:
                    async for chunk in reply.content.iter_any():
                        check.feed(chunk)
                    check.end()
                else:
                    check_whole(ask, await reply.read())
        except aiohttp.ClientConnectorError:
            if not self._excused(sent_at):
                raise
            self.tally.unreachable += 1
            raise _Again(KNOCK_S) from None
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
            if not self._excused(sent_at):
                raise
            self.tally.cut += 1
            raise _Again(KNOCK_S) from None

    def _excused(self, sent_at: float) -> bool:
        """A connection may break only while the server is dead."""
        return self._server.was_down(sent_at, time.monotonic())

    async def _refused(self, reply: aiohttp.ClientResponse, sent_at: float) -> None:
        body = await reply.text()
        after = reply.headers.get("retry-after", "")
        allowed = reply.status == 429 or (reply.status == 503 and self._excused(sent_at))
        if not allowed or not after.isdecimal():
            raise Wrong(f"{reply.status}, Retry-After {after!r}: {body[:500]}")
        self.tally.refused[str(reply.status)] += 1
        raise _Again(float(after))


def cycle_of(rng: random.Random, count: int) -> list[Segment]:
    """Bursts of many clients and quiet times of one or two, some pauses longer than the scale-down delay.

    Ends quietly. The mean of the shares is such that a cycle of 500 requests has four to six segments.
    """
    segments: list[Segment] = []
    left = count
    while left:
        burst = len(segments) % 2 == 0
        share = rng.uniform(0.3, 0.5) if burst else rng.uniform(0.02, 0.06)
        size = min(left, max(1, round(count * share)))
        clients = rng.choice((8, 12, 16, 24)) if burst else rng.choice((1, 2))
        segments.append(Segment(clients, size, rng.choice((0.0, 0.2, 0.9))))
        left -= size
    return segments


@asynccontextmanager
async def _session() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=PATIENCE_S)) as session:
        yield session
