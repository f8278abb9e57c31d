"""A replica that speaks the gateway's protocol exactly and fails on command. `serve` runs it in the test's own loop.

It "generates" the words that its prompt asks for: token i is the id i and the text `w<i> `.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import uvicorn

from dockyard.protocols.fleet import ReplicaAddress
from dockyard.protocols.generation import (
    TOKEN_HEADER,
    Alternative,
    GenerateEvent,
    GenerateRequest,
    ReplicaError,
    TokenLogprob,
    Usage,
)

TOKEN = "secret-of-the-replica"
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(GenerateRequest)


class ReplicaDouble:
    """`words` tokens per request. The switches below make it misbehave; each counts the requests that it concerns."""

    def __init__(self, words: int = 8) -> None:
        self.words = words
        self.requests: list[GenerateRequest] = []
        self.running = 0
        self.most_running = 0
        self.aborted = 0
        self.break_after: int | None = None  # events of the next request, then the connection is torn
        self.break_always = False
        self.end_after: int | None = None  # events of the next request, then a proper end without a finish
        self.refuse: tuple[int, ReplicaError] | None = None
        self.refuse_times = 0
        self.fail_after: int | None = None  # events, then {"error"}
        self.fail_kind = "failed"
        self.fail_times = 0
        self.hold: asyncio.Event | None = None  # wait for it before the first event
        self.hold_before_accepting = False
        self.gate_each: asyncio.Semaphore | None = None  # one permit per event
        self.gated = asyncio.Event()  # no permit was left
        self.started = asyncio.Event()
        self.idle = asyncio.Event()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        assert dict(scope["headers"])[TOKEN_HEADER.encode()] == TOKEN.encode()
        assert scope["method"] == "POST"
        assert scope["path"] == "/generate"
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        request = _decode.decode(body)
        self.requests.append(request)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.idle.clear()
        watcher = asyncio.create_task(self._until_gone(receive))
        work = asyncio.create_task(self._answer(request, scope, send))
        try:
            await asyncio.wait({watcher, work}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.aborted += 1
                work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
        finally:
            watcher.cancel()
            self.running -= 1
            if not self.running:
                self.idle.set()

    async def _until_gone(self, receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def _answer(self, request: GenerateRequest, scope: dict[str, Any], send: Any) -> None:
        if self.refuse is not None and self.refuse_times > 0:
            self.refuse_times -= 1
            status, error = self.refuse
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": _encode(error)})
            return
        if self.hold is not None and self.hold_before_accepting:
            self.started.set()
            await self.hold.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        self.started.set()
        if self.hold is not None:
            await self.hold.wait()
        await self._events(request, send)

    async def _events(self, request: GenerateRequest, send: Any) -> None:
        wanted = min(self.words, request.max_tokens)
        sent = 0
        for token in range(len(request.resume), wanted):
            if await self._misbehaves(sent, send):
                return
            if self.gate_each is not None:
                if self.gate_each.locked():
                    self.gated.set()
                await self.gate_each.acquire()
            event = GenerateEvent(text=f"w{token} ", ids=[token])
            if request.logprobs is not None:
                top = [Alternative(b"x%d" % index, -float(index)) for index in range(request.logprobs)]
                event.logprobs = [TokenLogprob(b"w%d " % token, -0.5 * token, top)]
            await self._send(send, event)
            sent += 1
        if await self._misbehaves(sent, send):
            return
        finish = "stop" if wanted < request.max_tokens else "length"
        await self._send(send, GenerateEvent(finish=finish, usage=Usage(prompt_tokens(request), wanted)))
        await send({"type": "http.response.body", "body": b""})

    async def _misbehaves(self, sent: int, send: Any) -> bool:
        if self.break_after == sent:
            if not self.break_always:
                self.break_after = None
            send.__self__.transport.abort()
            return True
        if self.end_after == sent:
            self.end_after = None
            await send({"type": "http.response.body", "body": b""})
            return True
        if self.fail_after == sent and self.fail_times > 0:
            self.fail_times -= 1
            await self._send(send, GenerateEvent(error=ReplicaError(self.fail_kind, "ENGINE_FAILED", "it hurt")))
            await send({"type": "http.response.body", "body": b""})
            return True
        return False

    async def _send(self, send: Any, event: GenerateEvent) -> None:
        await send({"type": "http.response.body", "body": _encode(event) + b"\n", "more_body": True})


def prompt_tokens(request: GenerateRequest) -> int:
    """One token per word of the prompt."""
    if request.prompt_ids is not None:
        return len(request.prompt_ids)
    if request.messages is not None:
        return sum(len(message["content"].split()) for message in request.messages)
    return len((request.prompt or "").split())


def text_of(words: int) -> str:
    """What the double says in `words` tokens."""
    return "".join(f"w{index} " for index in range(words))


class Served:
    """A uvicorn server inside this event loop."""

    def __init__(self, server: uvicorn.Server, task: asyncio.Task[None], leave: asyncio.Event) -> None:
        self.server = server
        self._task = task
        self._leave = leave

    @property
    def port(self) -> int:
        return self.server.servers[0].sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """End as a killed process does: every connection breaks."""
        for listener in self.server.servers:
            listener.close()
        for connection in list(self.server.server_state.connections):
            connection.transport.abort()  # type: ignore[union-attr]
        self.server.should_exit = True
        self.server.force_exit = True
        self._leave.set()
        await self._task


@contextlib.asynccontextmanager
async def serve(app: Callable[..., Any], socket: Path | None = None, http: Any = "auto") -> AsyncIterator[Served]:
    """Serve `app` on a Unix socket, or on a free port of the loopback interface."""
    ready, leave = asyncio.Event(), asyncio.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            ready.set()

        async def main_loop(self) -> None:
            await leave.wait()

        async def shutdown(self, sockets: Any = None) -> None:
            await asyncio.gather(*self.server_state.tasks, return_exceptions=True)

    config = uvicorn.Config(
        app,
        http=http,
        uds=str(socket) if socket is not None else None,
        host="127.0.0.1",
        port=0,
        lifespan="off",
        log_level="critical",
        access_log=False,
    )
    server = Server(config)
    task = asyncio.create_task(server._serve())
    try:
        await ready.wait()
        yield Served(server, task, leave)
    finally:
        await Served(server, task, leave).stop()


@contextlib.asynccontextmanager
async def served_double(
    directory: Path, name: str, words: int = 8
) -> AsyncIterator[tuple[ReplicaDouble, ReplicaAddress]]:
    """A double on its own Unix socket, and its address."""
    double = ReplicaDouble(words)
    socket = directory / f"{name}.sock"
    async with serve(double, socket):
        yield double, ReplicaAddress(token=TOKEN, socket=str(socket))
