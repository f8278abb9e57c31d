"""One generation from its place on a replica to its end, moved to another replica when that one breaks."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from dockyard.clock import Clock
from dockyard.errors import DockyardError, Failed, Invalid, Reason, Unavailable
from dockyard.gateway.connection import Connection, ConnectionBroken
from dockyard.gateway.pool import Lease, Pool
from dockyard.gateway.upstream import Upstreams
from dockyard.protocols.generation import (
    FinishReason,
    GenerateEvent,
    GenerateRequest,
    ReplicaError,
    TokenLogprob,
    ToolCall,
    Usage,
    decode_event,
    encode_request,
)

MAX_ENGINE_ERRORS = 2  # this many are retried; the next one ends the request
# A request that breaks every replica it reaches, without a token in between, is itself the likely cause.
MAX_FRUITLESS_BREAKS = 5
ERROR_BODY_BYTES = 1 << 16

_decode_error = msgspec.json.Decoder(ReplicaError)


class Sink(Protocol):
    """Where the text goes."""

    async def accepted(self) -> None:
        """A replica has taken the request; said again after each move."""
        ...

    async def piece(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> None:
        """`logprobs`: of the tokens that came, where the request asks for them; then `text` may be empty."""
        ...

    async def calls_made(self, calls: list[ToolCall]) -> None: ...


class Generation:
    """A prompt on its way: what was asked, what came so far, and how it ended. `placed`: it has a place on a replica
    now; `moves`: how often it has lost one.
    """

    __slots__ = (
        "_parts",
        "calls",
        "finish",
        "first_token_at",
        "index",
        "logprobs",
        "moves",
        "placed",
        "request",
        "seen",
        "usage",
    )

    def __init__(self, request: GenerateRequest, index: int = 0) -> None:
        self.request = request
        self.index = index
        self.seen: list[int] = list(request.resume)
        self.finish: FinishReason | None = None
        self.usage: Usage | None = None
        self.first_token_at: float | None = None
        self.placed = False
        self.moves = 0
        self.calls: list[ToolCall] = []
        self.logprobs: list[TokenLogprob] = []
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        """The text, if it was collected here."""
        return "".join(self._parts)

    async def accepted(self) -> None:
        """As the sink of a reply that is not streamed, a generation waits for its end."""

    async def piece(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> None:
        self._parts.append(text)
        self.logprobs.extend(logprobs)

    async def calls_made(self, calls: list[ToolCall]) -> None:
        self.calls.extend(calls)


class _Lost(Exception):
    """This attempt is over, the request is not: it goes to another replica."""


class _Stale(_Lost):
    """A kept connection had been closed by the replica: no fault of it."""


class _Unreachable(_Lost):
    """The replica did not take the request."""


class _Broke(_Lost):
    """The connection broke after the replica had taken the request."""


class _EngineError(_Lost):
    """The engine failed on the request."""


class Relay:
    """Carries generations to replicas."""

    def __init__(self, upstreams: Upstreams, clock: Clock) -> None:
        self._upstreams = upstreams
        self._clock = clock

    async def run(self, pool: Pool, key_id: str, generation: Generation, sink: Sink) -> None:
        """Run `generation` to its end on whichever replicas it takes; the caller bounds the time.

        Raises `Invalid` (the replica refuses the request), `Failed` (the engine fails on it again and again), and what
        `Pool.take` raises. The text that the sink got before is right and whole in every case.
        """
        lease = await pool.take(key_id)
        generation.placed = True
        budget: _Budget | None = None
        try:
            while True:
                try:
                    await self._attempt(lease, generation, sink)
                except _Lost as lost:
                    if not isinstance(lost, _Stale):
                        lease.failed()
                    budget = budget or _Budget(generation)
                    budget.spend(lost)
                    generation.placed = False
                    lease = await pool.take_another(lease)
                    generation.placed = True
                else:
                    lease.finish()
                    return
        finally:
            lease.release()

    async def _attempt(self, lease: Lease, generation: Generation, sink: Sink) -> None:
        upstream = self._upstreams.acquire(lease.replica.address)
        try:
            generation.request.resume = generation.seen
            try:
                reply = await upstream.generate(encode_request.encode(generation.request))
            except ConnectionBroken as error:
                raise (_Stale if error.unused else _Broke)(str(error)) from error
            except OSError as error:
                raise _Unreachable(str(error)) from error
            try:
                if reply.status != 200:
                    raise await _refusal(reply)
                lease.accepted()
                await sink.accepted()
                await self._read(reply, generation, sink)
            finally:
                upstream.give_back(reply)
        finally:
            self._upstreams.release(upstream)

    async def _read(self, reply: Connection, generation: Generation, sink: Sink) -> None:
        rest = b""
        while chunk := await _next(reply, generation):
            lines = rest + chunk
            end = lines.rfind(b"\n") + 1
            rest = lines[end:]
            if end:
                await self._take_in(lines[:end], generation, sink)
        if rest and generation.finish is None:
            await self._take_in(rest, generation, sink)
        if generation.finish is None:
            raise _Broke("the replica's reply ended before the generation did")

    async def _take_in(self, lines: bytes, generation: Generation, sink: Sink) -> None:
        """Note the ids and pass text and calls on, all or nothing, so that a resumed one goes on exactly there."""
        try:
            events: list[GenerateEvent] = decode_event.decode_lines(lines)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _Broke(f"the replica sent what is no event: {error}") from error
        texts: list[str] = []
        calls: list[ToolCall] = []
        logprobs: list[TokenLogprob] = []
        failure: ReplicaError | None = None
        for event in events:
            if event.error is not None:
                failure = event.error
                break
            texts.append(event.text)
            if event.calls:
                calls.extend(event.calls)
            if event.logprobs:
                logprobs.extend(event.logprobs)
            generation.seen.extend(event.ids)
            if event.prefilled is not None:
                generation.request.prefilled = event.prefilled
            if event.finish is not None:
                generation.finish = event.finish
                generation.usage = event.usage or Usage(0, len(generation.seen))
        if generation.first_token_at is None and generation.seen:
            generation.first_token_at = self._clock.monotonic()
        text = "".join(texts)
        if text or logprobs:
            await sink.piece(text, logprobs)
        if calls:
            await sink.calls_made(calls)
        if failure is not None:
            raise _in_stream(failure)


class _Budget:
    """How often a generation may still be moved."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self._engine_errors = 0
        self._fruitless = 0
        self._seen = len(generation.seen)

    def spend(self, lost: _Lost) -> None:
        """Count a loss. Raises `Failed` or `Unavailable` when it was one too many."""
        self._generation.moves += 1
        if isinstance(lost, _EngineError):
            self._engine_errors += 1
            if self._engine_errors > MAX_ENGINE_ERRORS:
                raise Failed(
                    f"the engine failed {self._engine_errors} times on this request; the deployment's logs tell why",
                    reason=Reason.ENGINE_FAILED,
                ) from lost
        elif isinstance(lost, _Broke):
            self._fruitless = 1 if len(self._generation.seen) > self._seen else self._fruitless + 1
            self._seen = len(self._generation.seen)
            if self._fruitless >= MAX_FRUITLESS_BREAKS:
                raise Unavailable(
                    f"{self._fruitless} replicas broke on this request one after the other; the deployment's logs "
                    "tell why",
                    reason=Reason.ENGINE_CRASHED,
                    retry_after_s=5,
                ) from lost


async def _next(reply: Connection, generation: Generation) -> bytes:
    try:
        return await reply.read()
    except ConnectionBroken as error:
        if generation.finish is not None:
            return b""  # all had been said
        raise _Broke(str(error)) from error


async def _refusal(reply: Connection) -> Exception:
    """What a status other than 200 means: the client's fault, or one more replica to leave."""
    try:
        told = _decode_error.decode(await reply.read_all(ERROR_BODY_BYTES))
    except (ConnectionBroken, msgspec.DecodeError, UnicodeDecodeError):
        return _Unreachable(f"the replica answered {reply.status}")
    if reply.status == 400:
        return _invalid(told)
    if reply.status == 503:
        return _Unreachable(told.message)
    return _EngineError(told.message)


def _in_stream(told: ReplicaError) -> Exception:
    if told.kind == Invalid.kind:
        return _invalid(told)
    if told.kind == Unavailable.kind:
        return _Broke(told.message)
    return _EngineError(told.message)


def _invalid(told: ReplicaError) -> DockyardError:
    reason = Reason(told.reason) if told.reason in Reason.__members__ else Reason.BAD_FORMAT
    return Invalid(told.message, reason=reason, field=told.field)
