"""How long a short request takes behind long ones that fill the batch, or half of it, compared with alone.

Long requests are streamed; when all of them run, the short one is sent. Its time divided by its time alone, on the
same server, tells how far the long ones delay it. Two kinds of full batch: all long ones of one length, and of lengths
that differ, where a place comes free sooner. Subjects: Dockyard with CTranslate2 and with Transformers, and vLLM's
server on the CPU, whose batching is continuous. Each has a batch of 10 at most and is measured in turn.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from statistics import median

import aiohttp

from bench.generation import PROMPTS, Endpoint
from bench.models import BenchModel, ensure_endless_smollm2
from bench.outcome import Arguments, Outcome, parse_arguments, parser, recording
from bench.peers.vllm import VllmServer
from bench.processes import BenchFailed
from bench.server import INT8, PLAIN, DockyardServer

BATCH = 10
SHORT_TOKENS = 8
SHORT_PROMPT = "The capital of France is"
CTRANSLATE2, TRANSFORMERS, VLLM = "dockyard ctranslate2", "dockyard transformers", "vllm"
MEASURED_ALONE = 3  # times a round: it is short


@dataclass(frozen=True)
class Crowd:
    """The long requests: how many tokens each makes."""

    name: str
    lengths: tuple[int, ...]


def crowds(quick: bool) -> tuple[Crowd, ...]:
    base, step = (60, 10) if quick else (200, 20)
    return (
        Crowd("behind a full batch", (base,) * BATCH),
        Crowd("behind a full batch, mixed", tuple(base + step * number for number in range(BATCH))),
        Crowd("beside half a batch", (base,) * (BATCH // 2)),
    )


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--only", nargs="+", choices=(CTRANSLATE2, TRANSFORMERS, VLLM), help="these subjects alone")
    arguments = parse_arguments(options, rounds=5)
    question = f"A request of {SHORT_TOKENS} tokens: its time behind long ones ÷ its time alone, same server"
    with recording(arguments, "short_behind_long", "A short request behind long ones", question) as outcome:
        wanted = arguments.options.only or [CTRANSLATE2, TRANSFORMERS, VLLM]
        with _subjects(ensure_endless_smollm2(), wanted, outcome) as subjects:
            for number in range(arguments.rounds):
                for subject, endpoint in subjects.items():
                    asyncio.run(_round(outcome, number, subject, endpoint, crowds(arguments.quick)))
        _judge(outcome, arguments)


@contextmanager
def _subjects(model: BenchModel, wanted: list[str], outcome: Outcome) -> Iterator[dict[str, Endpoint]]:
    """All servers, loaded and idle. vLLM is left out, with its reason, where its environment is not there."""
    with ExitStack() as stack:
        subjects: dict[str, Endpoint] = {}
        optimizations = {CTRANSLATE2: INT8, TRANSFORMERS: PLAIN}
        if ours := [subject for subject in wanted if subject in optimizations]:
            server = stack.enter_context(DockyardServer())
            model_id = server.import_model(model.folder)
            for subject in ours:
                server.deploy(model_id, subject, optimizations[subject], maxBatchSize=BATCH)
                subjects[subject] = Endpoint(server.url, subject, {"x-api-key": server.key})
        if VLLM in wanted:
            try:
                peer = stack.enter_context(VllmServer(model.folder, batch=BATCH))
                subjects[VLLM] = peer.endpoint
                outcome.versions[VLLM] = peer.version
            except BenchFailed as error:
                outcome.not_run[VLLM] = str(error)
        yield subjects


async def _round(outcome: Outcome, number: int, subject: str, endpoint: Endpoint, kinds: tuple[Crowd, ...]) -> None:
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(headers=dict(endpoint.headers), timeout=timeout) as session:
        alone = median([await _short(session, endpoint) for _ in range(MEASURED_ALONE)])
        outcome.add(number, "alone", "s", subject, alone)
        for crowd in kinds:
            async with _crowd(session, endpoint, crowd):
                took = await _short(session, endpoint)
            outcome.add(number, crowd.name, "s", subject, took)
            outcome.add(number, f"{crowd.name} ÷ alone", "×", subject, took / alone)
            print(f"round {number + 1} {subject} {crowd.name}: {took:.2f} s, alone {alone:.2f} s", flush=True)


async def _short(session: aiohttp.ClientSession, endpoint: Endpoint) -> float:
    """Seconds that the short request takes, not streamed."""
    began = time.monotonic()
    async with session.post(
        endpoint.completions, data=endpoint.body(SHORT_PROMPT, SHORT_TOKENS, stream=False), headers=_JSON
    ) as reply:
        told = await reply.json()
        if reply.status != 200 or told["usage"]["completion_tokens"] != SHORT_TOKENS:
            raise BenchFailed(f"the short request: {reply.status} {told}")
    return time.monotonic() - began


_JSON = {"content-type": "application/json"}


@asynccontextmanager
async def _crowd(session: aiohttp.ClientSession, endpoint: Endpoint, crowd: Crowd) -> AsyncIterator[None]:
    """The long requests, all of them running at this moment, each followed by another of its kind.

    An idle engine may start with the first one alone and take the others when that has ended: so the moment is when
    every one that is open has had a token. At the end they are dropped, and a short request has seen them off.
    """
    running: set[int] = set()
    all_run = asyncio.Event()

    async def keep_sending(index: int, body: bytes) -> None:
        while True:
            async with session.post(endpoint.completions, data=body, headers=_JSON) as reply:
                if reply.status != 200:
                    raise BenchFailed(f"a long request: {reply.status} {await reply.text()}")
                async for line in reply.content:
                    if line.startswith(b"data: {"):
                        running.add(index)
                        if len(running) == len(crowd.lengths):
                            all_run.set()
            running.discard(index)

    async with asyncio.TaskGroup() as tasks:
        longs = [
            tasks.create_task(keep_sending(index, endpoint.body(PROMPTS[index % len(PROMPTS)], length, stream=True)))
            for index, length in enumerate(crowd.lengths)
        ]
        await all_run.wait()
        yield
        for task in longs:
            task.cancel()
    await _short(session, endpoint)


def _judge(outcome: Outcome, arguments: Arguments) -> None:
    for crowd in crowds(arguments.quick):
        metric = f"{crowd.name} ÷ alone"
        peer = outcome.find(metric, VLLM)
        for subject in (CTRANSLATE2, TRANSFORMERS):
            outcome.compare(metric, subject, VLLM, better="lower")
            if peer is not None:
                outcome.judge(
                    f"{metric}, {subject}: at most vLLM's {peer.median:.1f}", metric, subject, "<=", peer.median
                )


if __name__ == "__main__":
    main()
