"""The two generating routes, from a body to a reply: who may, what is asked, run it, say it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from dockyard.clock import Clock
from dockyard.errors import Forbidden, Invalid, NotFound, Reason, TimedOut
from dockyard.gateway.exchange import Exchange
from dockyard.gateway.openai_best import best
from dockyard.gateway.openai_checks import chat_generation, rows_of_prompt, text_generations
from dockyard.gateway.openai_replies import DONE, ChatShape, Shape, TextShape, total
from dockyard.gateway.openai_wire import (
    BodyDecoder,
    ChatCompletionRequest,
    CompletionRequest,
    Sampling,
    named_model,
)
from dockyard.gateway.pool import Pool
from dockyard.gateway.random_ids import random_id
from dockyard.gateway.relay import Generation, Relay
from dockyard.gateway.routes import Routes
from dockyard.protocols.generation import GenerateRequest, TokenLogprob, ToolCall
from dockyard.protocols.routing import Principal, Route

MAX_BODY_BYTES = 8 << 20

_W = TypeVar("_W", bound=Sampling)


@dataclass(slots=True)
class Account:
    """What is noted of a request for log and metrics, filled as it goes."""

    arrived_at: float  # monotonic
    route: Route | None = None
    generations: Sequence[Generation] = ()
    rows: int = 1  # of each prompt
    reason: str | None = None
    key_id: str | None = None
    reply_id: str = field(default="")


@dataclass(frozen=True, slots=True)
class Kind(Generic[_W]):
    """One of the two routes: its body, what it asks of replicas, how it says the reply."""

    decoder: BodyDecoder[_W]
    generations: Callable[[_W, Route, str], list[GenerateRequest]]
    shape: type[ChatShape] | type[TextShape]


CHAT = Kind(BodyDecoder(ChatCompletionRequest), chat_generation, ChatShape)
TEXT = Kind(BodyDecoder(CompletionRequest), text_generations, TextShape)


class Inference:
    """Answers chat and text completions."""

    def __init__(self, routes: Routes, relay: Relay, clock: Clock) -> None:
        self._routes = routes
        self._relay = relay
        self._clock = clock

    async def answer(self, kind: Kind[_W], exchange: Exchange, principal: Principal, account: Account) -> None:
        """Reply in full, or raise the `DockyardError` that is to be rendered."""
        arrived_at = asyncio.get_running_loop().time()
        exchange.check_json()
        try:
            with exchange.guard() as guard:
                body = await exchange.read_body(MAX_BODY_BYTES)
                wanted, route, pool = self._admit(kind, body, principal, account)
                guard.answer_by(arrived_at + route.endpoint_timeout_s)
                generations, shape = self._prepare(kind, wanted, route, account)
                sink = _Stream(exchange, shape) if wanted.stream else None
                await self._run(pool, principal.key_id, generations, sink)
                usage = total([generation.usage for generation in generations], account.rows)
                if sink is not None:
                    await exchange.end_stream(shape.counts(usage) + DONE)  # waits for a client that does not read
        except TimeoutError as error:
            raise _too_late(account) from error
        if sink is None:
            await exchange.reply(200, shape.whole(best(wanted, generations, account.rows), usage))

    def _admit(self, kind: Kind[_W], body: bytes, principal: Principal, account: Account) -> tuple[_W, Route, Pool]:
        """The decoded body and where it goes. What the key may not do is told before what is wrong with the body."""
        try:
            wanted = kind.decoder.decode(body)
        except Invalid:
            model = named_model(body)
            if model is not None:
                self._routed(model, principal, account)
            raise
        return (wanted, *self._routed(wanted.model, principal, account))

    def _routed(self, model: str, principal: Principal, account: Account) -> tuple[Route, Pool]:
        found = self._routes.find(model)
        if found is None:
            raise NotFound(
                f"no deployment '{model[:128]}' is served; GET /v1/models lists those that are",
                reason=Reason.MODEL_NOT_SERVED,
                field="model",
            )
        account.route = found[0]
        if not principal.may_infer(found[0].deployment_id):
            raise Forbidden(f"the key may not use '{found[0].name}'; it needs the scope Infer, or to be a key of it")
        return found

    def _prepare(self, kind: Kind[_W], wanted: _W, route: Route, account: Account) -> tuple[list[Generation], Shape]:
        """What goes to replicas, and how the reply is said."""
        reply_id = account.reply_id = random_id(kind.shape.prefix)
        requests = kind.generations(wanted, route, reply_id)
        account.rows = rows_of_prompt(wanted)
        generations = account.generations = [Generation(request, index) for index, request in enumerate(requests)]
        include_usage = wanted.stream_options is not None and bool(wanted.stream_options.include_usage)
        created = int(self._clock.now().timestamp())
        return generations, kind.shape(reply_id, created, route.name, include_usage=include_usage)

    async def _run(self, pool: Pool, key_id: str, generations: list[Generation], sink: "_Stream | None") -> None:
        if len(generations) == 1:
            await self._run_one(pool, key_id, generations[0], sink)
            return
        try:
            async with asyncio.TaskGroup() as group:
                for generation in generations:
                    group.create_task(self._run_one(pool, key_id, generation, sink))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _run_one(self, pool: Pool, key_id: str, generation: Generation, sink: "_Stream | None") -> None:
        if sink is None:
            await self._relay.run(pool, key_id, generation, generation)
            return
        choice = _StreamedChoice(sink, generation.index)
        await self._relay.run(pool, key_id, generation, choice)
        await choice.end(generation)


def _too_late(account: Account) -> TimedOut:
    assert account.route is not None  # the guard's deadline is the route's
    limit = f"the endpoint timeout of '{account.route.name}', {account.route.endpoint_timeout_s} s"
    if lost := max((generation.moves for generation in account.generations if not generation.placed), default=0):
        return TimedOut(
            f"no complete reply within {limit}: the request lost its replica {lost} time(s) and still waited for "
            "another one; try again later, the deployment's events and logs tell why replicas ended"
        )
    if any(generation.placed for generation in account.generations):
        return TimedOut(
            f"no complete reply within {limit}; ask for fewer tokens, or raise endpointTimeout of the deployment"
        )
    return TimedOut(
        f"no replica had a place for the request within {limit}; try again later, or raise the deployment's maxReplicas"
    )


class _Stream:
    """A stream of events that begins when the first replica has accepted."""

    __slots__ = ("exchange", "shape")

    def __init__(self, exchange: Exchange, shape: Shape) -> None:
        self.exchange = exchange
        self.shape = shape

    async def begin(self) -> None:
        if not self.exchange.streaming:
            await self.exchange.start_stream()


class _StreamedChoice:
    """One choice of a stream."""

    __slots__ = ("_calls", "_index", "_opened", "_stream")

    def __init__(self, stream: _Stream, index: int) -> None:
        self._stream = stream
        self._index = index
        self._opened = False
        self._calls = 0  # sent so far

    async def accepted(self) -> None:
        await self._stream.begin()
        if not self._opened:
            self._opened = True
            if opening := self._stream.shape.opening(self._index):
                await self._stream.exchange.write(opening)

    async def piece(self, text: str, logprobs: Sequence[TokenLogprob] = ()) -> None:
        await self._stream.exchange.write(self._stream.shape.piece(self._index, text, logprobs))

    async def calls_made(self, calls: list[ToolCall]) -> None:
        first, self._calls = self._calls, self._calls + len(calls)
        await self._stream.exchange.write(self._stream.shape.calls(self._index, calls, first))

    async def end(self, generation: Generation) -> None:
        await self._stream.exchange.write(self._stream.shape.ending(self._index, generation.finish or "stop"))
