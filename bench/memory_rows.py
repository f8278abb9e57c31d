"""Rows for one replica: as many as its engine takes at once, together there, and as long as its context."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

import aiohttp

from bench.memory_models import PreparedModel
from bench.processes import BenchFailed
from dockyard.domain.batching import reserve_rows
from dockyard.domain.card import Family
from dockyard.domain.compatibility import compute_type
from dockyard.domain.fit import HOST_CONTEXT, UNBOUNDED_CONTEXT
from dockyard.domain.ids import new_id
from dockyard.domain.spec import EngineName, Quantization
from dockyard.protocols.fleet import ReplicaStatus
from dockyard.protocols.generation import (
    TOKEN_HEADER,
    GenerateRequest,
    Health,
    decode_event,
    decode_health,
    encode_request,
)

_NEW_TOKENS = 24  # at most; a prompt nearly fills its context, as the estimate has it
_JOINED_TOKENS = 48  # of rows that others join before they end
_LENGTHS = 4  # different ones, the shortest so many tokens less one below the context
_TRIES = 48
_TOLD_AFTER = 12  # tries
_PATIENCE_S = 300.0  # for rows to come together


class Batching(Enum):
    STATIC = auto()  # rows that wait start together; the reserve has a batch of its own
    JOINING = auto()  # rows join those that run; the reserve has extra seats
    ENGINE = auto()  # the engine's own way


@dataclass(frozen=True, slots=True)
class Subject:
    model: PreparedModel
    engine: EngineName
    quantization: Quantization
    artifact: Path

    @property
    def compute(self) -> str:
        return compute_type(self.engine, self.quantization, "cpu")

    @property
    def batching(self) -> Batching:
        if self.engine is EngineName.VLLM:
            return Batching.ENGINE
        joins = self.engine is EngineName.TRANSFORMERS and self.model.card.family is Family.DECODER
        return Batching.JOINING if joins else Batching.STATIC

    @property
    def longest(self) -> int:
        return min(self.model.card.context_length or UNBOUNDED_CONTEXT, HOST_CONTEXT)


async def fill(status: ReplicaStatus, subject: Subject, batch: int, context: int) -> None:
    """All rows that the engine takes at once are there at once, and fill the context."""
    connector = aiohttp.UnixConnector(status.address.socket or "", limit=0)
    fill = {Batching.STATIC: _fill_static, Batching.JOINING: _fill_joining, Batching.ENGINE: _fill_engine}
    async with aiohttp.ClientSession(connector=connector) as session:
        for number in range(1, _TRIES + 1):
            if await fill[subject.batching](session, status, subject, batch, context):
                return
            if number % _TOLD_AFTER == 0:
                print(f"{batch} requests did not come together in {number} tries; is the machine busy?", flush=True)
            await _until(session, status, lambda health: health.running == health.waiting == 0)
    raise BenchFailed(f"{batch} requests never came together, in {_TRIES} tries; is the machine busy?")


async def _fill_static(
    session: aiohttp.ClientSession, status: ReplicaStatus, subject: Subject, batch: int, context: int
) -> bool:
    """Whether the rows came together. They wait behind a small one until all are there, and start when it is dropped.

    Rows of as many tokens that end soon follow, to the reserve. Not all rows of the batch are of one length, as in
    life: engines that pad do it, and build the mask that it takes.
    """
    new = min(_NEW_TOKENS, context // 16)
    long = [_request(subject, context - number % _LENGTHS, new) for number in range(batch)]
    gate = _Gate(batch)
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(_ask(session, status, request, gate)) for request in long]
        await gate.all_there.wait()
        holder = group.create_task(_hold(session, status, subject))
        await _until(session, status, lambda health: health.running >= 1)
        gate.opened.set()
        seen = await _until(session, status, lambda health: health.waiting >= batch or health.running > 1, 0.001)
        full = seen.waiting >= batch
        holder.cancel()
        if not full:  # some have begun without the others
            for task in asked:
                task.cancel()
            return False
        await _until(session, status, lambda health: health.waiting == 0 or any(task.done() for task in asked))
        for _ in range(reserve_rows(batch)):
            group.create_task(_ask(session, status, _request(subject, context, 1)))
    return True


async def _fill_joining(
    session: aiohttp.ClientSession, status: ReplicaStatus, subject: Subject, batch: int, context: int
) -> bool:
    """Whether all seats were taken, the extra ones too: first by rows of many lengths, then by long ones.

    Those for the extra seats end soon, so that they need not wait until others leave.
    """
    new, extra = min(_JOINED_TOKENS, context // 4), reserve_rows(batch)
    steps = max(1, (context - new - _LENGTHS) // batch)
    mixed = [_request(subject, context - number * steps, new) for number in range(batch)]
    alike = [_request(subject, context - number % _LENGTHS, new) for number in range(batch)]
    for requests in (mixed, alike):
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(_ask(session, status, request)) for request in requests]
            asked += [group.create_task(_ask(session, status, _request(subject, context, 2))) for _ in range(extra)]
            seen = await _until(
                session,
                status,
                lambda health, asked=asked: health.running >= batch + extra or all(task.done() for task in asked),
            )
        if seen.running < batch + extra:
            return False
    return True


async def _fill_engine(
    session: aiohttp.ClientSession, status: ReplicaStatus, subject: Subject, batch: int, context: int
) -> bool:
    """An engine that took its cache when it started: it gets its rows, and seats them as it likes."""
    new = min(_NEW_TOKENS, context // 16)
    async with asyncio.TaskGroup() as group:
        for number in range(batch):
            group.create_task(_ask(session, status, _request(subject, context - number % _LENGTHS, new)))
    return True


async def _hold(session: aiohttp.ClientSession, status: ReplicaStatus, subject: Subject) -> None:
    """One small row at a time until it is cancelled: those who come meanwhile wait, and then start as one batch."""
    card = subject.model.card
    room = (card.context_length or UNBOUNDED_CONTEXT) - 4
    while True:
        request = GenerateRequest(id=new_id("rq"), prompt_ids=[3, 4], temperature=0, max_tokens=min(room, 1000))
        await _ask(session, status, request)


async def _until(
    session: aiohttp.ClientSession, status: ReplicaStatus, reached: Callable[[Health], bool], every_s: float = 0.01
) -> Health:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                async with session.get("http://replica/health", headers={TOKEN_HEADER: status.address.token}) as reply:
                    seen = decode_health.decode(await reply.read())
                if reached(seen):
                    return seen
                await asyncio.sleep(every_s)
    except TimeoutError:
        raise BenchFailed(f"what was waited for did not happen in {_PATIENCE_S:.0f} s; is the machine busy?") from None


def _request(subject: Subject, context: int, new_tokens: int) -> GenerateRequest:
    """Prompt and output together have `context` tokens; of an encoder-decoder each of the two."""
    card = subject.model.card
    decoder = card.family is Family.DECODER
    prompt = context - new_tokens if decoder else context
    return GenerateRequest(
        id=new_id("rq"),
        prompt_ids=[random.randrange(3, card.vocab_size - 1) for _ in range(prompt)],
        temperature=0,
        max_tokens=new_tokens if decoder or new_tokens == 1 else context,
    )


class _Gate:
    """Before it requests wait of which all but the first byte is still to come: a small model ends before many are
    sent.
    """

    def __init__(self, count: int) -> None:
        self.all_there, self.opened = asyncio.Event(), asyncio.Event()
        self._missing = count

    async def pass_through(self, body: bytes) -> AsyncIterator[bytes]:
        yield body[:1]
        self._missing -= 1
        if self._missing == 0:
            self.all_there.set()
        await self.opened.wait()
        yield body[1:]


async def _ask(
    session: aiohttp.ClientSession, status: ReplicaStatus, request: GenerateRequest, gate: _Gate | None = None
) -> None:
    body = encode_request.encode(request)
    headers = {
        TOKEN_HEADER: status.address.token,
        "content-type": "application/json",
        "content-length": str(len(body)),
    }
    async with session.post(
        "http://replica/generate",
        data=gate.pass_through(body) if gate else body,
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=None),
    ) as reply:
        lines = [decode_event.decode(line) async for line in reply.content]
    if not lines or lines[-1].finish is None:
        raise BenchFailed(f"a request failed: {lines[-1:]}")
