"""What a replica was expected to need of a host's memory, over the most that it really had.

Every model of the tests and a larger one, on every engine of a CPU, in every precision, for batches of three sizes;
vLLM where its environment is at hand.
Each replica is a process of its own, as the fleet starts them, without a spare. A full batch of rows that fill the
context is sent, and as many more as the reserve takes; then the peak of its memory is read (`bench/peak.py` says how).
"""

import asyncio
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil

from bench.memory_models import ModelShelf, PreparedModel
from bench.outcome import Arguments, Outcome, Target, parse_arguments, parser, recording
from bench.peak import Peak, PeakWatch, TreeWatch
from bench.processes import BenchFailed
from bench.replicas import serving, worker_spec
from bench.vllm_python import find_vllm_python
from dockyard.clock import SystemClock
from dockyard.domain.batching import reserve_rows
from dockyard.domain.card import Family
from dockyard.domain.compatibility import compute_type
from dockyard.domain.deployment import Runtime
from dockyard.domain.fit import HOST_CONTEXT, UNBOUNDED_CONTEXT, cache_on_a_cpu
from dockyard.domain.ids import new_id
from dockyard.domain.memory import memory_need
from dockyard.domain.spec import EngineName, Quantization
from dockyard.domain.threads import threads_per_replica
from dockyard.engine_environments import EngineEnvironments
from dockyard.fleets.local.fleet import LocalFleet
from dockyard.protocols.fleet import ReplicaStatus
from dockyard.protocols.generation import (
    TOKEN_HEADER,
    GenerateRequest,
    Health,
    WorkerSpec,
    decode_event,
    decode_health,
    encode_request,
)

MODELS = ("t5-date", "gpt2-kjv", "SmolLM2-135M", "random Llama")
CELLS = (
    (EngineName.TRANSFORMERS, Quantization.NONE),
    (EngineName.CTRANSLATE2, Quantization.NONE),
    (EngineName.CTRANSLATE2, Quantization.INT8_FLOAT16),
    (EngineName.VLLM, Quantization.NONE),
)
VLLM_PYTHON = find_vllm_python()
VLLM_MODELS = ("gpt2-kjv", "SmolLM2-135M")  # a start of vLLM takes up to 80 s
WITHIN = 0.15
BATCHES = (1, 10, 32)
NEW_TOKENS = 24  # at most; a prompt nearly fills its context, as the estimate has it
MOST_TOKENS = 16_384  # of a batch together: on two cores more of them take many minutes
_TRIES = 8
_LENGTHS = 4  # different ones, the shortest so many tokens less one below the context
MIB = 1 << 20


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
    def longest(self) -> int:
        return min(self.model.card.context_length or UNBOUNDED_CONTEXT, HOST_CONTEXT)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--only", nargs="+", choices=MODELS, help="these models alone")
    options.add_argument("--engine", choices=sorted({str(engine) for engine, _ in CELLS}), help="this engine alone")
    options.add_argument("--batch", type=int, nargs="+", default=BATCHES, help=f"maxBatchSize (default {BATCHES})")
    told = f"of a full batch; longer ones are left out (default {MOST_TOKENS})"
    options.add_argument("--most-tokens", type=int, default=MOST_TOKENS, help=told)
    arguments = parse_arguments(options, rounds=1, quick_rounds=1)
    question = "The memory that one replica is expected to need, over the most that it had under a full batch"
    with recording(arguments, "memory_fit", "Memory: estimate and peak", question) as outcome:
        if VLLM_PYTHON is None:
            outcome.not_run[str(EngineName.VLLM)] = "its environment is not at hand"
        shelf = ModelShelf()
        for name in arguments.options.only or MODELS:
            model = shelf.model(name)
            for engine, quantization in CELLS:
                if arguments.options.engine in (None, engine) and _is_measured(name, engine):
                    subject = Subject(model, engine, quantization, shelf.artifact(model, engine, quantization))
                    asyncio.run(_measure(arguments, outcome, subject))
        _judge(outcome)
    _print_table(outcome)


def _is_measured(model: str, engine: EngineName) -> bool:
    return engine is not EngineName.VLLM or (model in VLLM_MODELS and VLLM_PYTHON is not None)


async def _measure(arguments: Arguments, outcome: Outcome, subject: Subject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pythons = {} if VLLM_PYTHON is None else {"vllm": VLLM_PYTHON}
        elsewhere = EngineEnvironments(Path(folder) / "engines", pythons).command_of
        fleet = LocalFleet(Path(folder) / "run", SystemClock(), warm_spares=False, elsewhere=elsewhere)
        await fleet.open([])
        try:
            for number in range(arguments.rounds):
                for batch in arguments.options.batch:
                    await _measure_batch(arguments, outcome, subject, number, batch, fleet)
        finally:
            await fleet.close(stop_replicas=True)


async def _measure_batch(
    arguments: Arguments, outcome: Outcome, subject: Subject, number: int, batch: int, fleet: LocalFleet
) -> None:
    """One replica, which is sent full batches of the shorter and then of the longer context."""
    most: int = arguments.options.most_tokens
    contexts = [subject.longest // 4, *([] if arguments.quick or batch * subject.longest > most else [subject.longest])]
    spec = _spec(subject, batch)
    if subject.engine is EngineName.VLLM:
        await _measure_tree(outcome, subject, number, spec, fleet)
        return
    status = await serving(fleet, spec)
    for context in contexts:
        with PeakWatch(status.pid or 0) as watch:
            await _fill(status, subject, batch, context)
        _tell(outcome, number, subject, batch, context, watch.peak)
    await fleet.stop(spec.replica_id, grace_s=10)


async def _measure_tree(outcome: Outcome, subject: Subject, number: int, spec: WorkerSpec, fleet: LocalFleet) -> None:
    """Of an engine with several processes, which takes all of its cache when it starts: one context is enough."""
    batch, context = spec.max_batch_size, subject.longest
    begun = await fleet.start(spec)
    with TreeWatch(begun.pid or 0) as watch:
        status = await serving(fleet, spec)
        await _fill(status, subject, batch, context)
    _tell(outcome, number, subject, batch, context, watch.peak)
    await fleet.stop(spec.replica_id, grace_s=10)


def _spec(subject: Subject, batch: int) -> WorkerSpec:
    """No text ends before its length: the end is a token that none of the models says."""
    card = subject.model.card
    runtime = Runtime(
        engine=subject.engine,
        device="cpu",
        gpus=0,
        compute_type=subject.compute,
        runs_on="cpu",
        context_length=card.context_length,
        memory_bytes=0,
    )
    return worker_spec(
        subject.engine,
        subject.artifact,
        subject.model.folder,
        batch=batch,
        threads=threads_per_replica(subject.engine, card.parameters, psutil.cpu_count() or 1, 1),
        family=str(card.family),
        compute_type=subject.compute,
        context_length=card.context_length,
        eos_token_ids=[card.vocab_size - 1],
        decoder_start_token_id=card.decoder_start_token_id,
        cache_bytes=cache_on_a_cpu(card, runtime, batch),
    )


async def _fill(status: ReplicaStatus, subject: Subject, batch: int, context: int) -> None:
    """A full batch that runs long, then rows of as many tokens that end soon: those go to the reserve beside it."""
    connector = aiohttp.UnixConnector(status.address.socket or "", limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        for _ in range(_TRIES):
            if await _fill_once(session, status, subject, batch, context):
                return
    raise BenchFailed(f"{batch} requests never came together, in {_TRIES} tries; is the machine busy?")


async def _fill_once(
    session: aiohttp.ClientSession, status: ReplicaStatus, subject: Subject, batch: int, context: int
) -> bool:
    """Whether the rows came together. They wait behind a small one until all are there, and start when it is dropped.

    Not all rows of the batch are of one length, as in life: engines that pad do it, and build the mask that it takes.
    """
    new = min(NEW_TOKENS, context // 16)
    long = [_request(subject, context - number % _LENGTHS, new) for number in range(batch)]
    joins = subject.engine is EngineName.VLLM  # each row joins those that run
    async with asyncio.TaskGroup() as group:
        holder = group.create_task(_hold(session, status, subject))
        await _until(session, status, lambda health: health.running >= 1)
        asked = [group.create_task(_ask(session, status, request)) for request in long]
        seen = await _until(session, status, lambda health: joins or health.waiting >= batch or health.running > 1)
        full = joins or seen.waiting >= batch
        holder.cancel()
        await _until(session, status, lambda health: health.waiting == 0 or any(task.done() for task in asked))
        for _ in range(reserve_rows(batch) if full else 0):
            group.create_task(_ask(session, status, _request(subject, context, 1)))
    return full


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
    while True:
        async with session.get("http://replica/health", headers={TOKEN_HEADER: status.address.token}) as reply:
            seen = decode_health.decode(await reply.read())
        if reached(seen):
            return seen
        await asyncio.sleep(every_s)


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


async def _ask(session: aiohttp.ClientSession, status: ReplicaStatus, request: GenerateRequest) -> None:
    async with session.post(
        "http://replica/generate",
        data=encode_request.encode(request),
        headers={TOKEN_HEADER: status.address.token, "content-type": "application/json"},
        timeout=aiohttp.ClientTimeout(total=None),
    ) as reply:
        lines = [decode_event.decode(line) async for line in reply.content]
    if not lines or lines[-1].finish is None:
        raise BenchFailed(f"a request failed: {lines[-1:]}")


def _tell(outcome: Outcome, number: int, subject: Subject, batch: int, context: int, peak: Peak) -> None:
    need = memory_need(subject.model.card, subject.engine, subject.compute, "cpu", batch, context)
    what, engine = f"{subject.model.name}, {batch} × {context} tokens", f"{subject.engine} {subject.compute}"
    outcome.add(number, f"{what}: peak", "MiB", engine, peak.total / MIB)
    outcome.add(number, f"{what}: expected", "MiB", engine, need.total_bytes / MIB)
    outcome.add(number, f"{what}: expected ÷ peak", "", engine, need.total_bytes / peak.total)
    print(f"{what}, {engine}: {_mib(peak)}; expected {need.total_bytes / MIB:.0f} MiB", flush=True)


def _judge(outcome: Outcome) -> None:
    ratios = [row.median for row in outcome.rows if row.metric.endswith("÷ peak")]
    met = all(1 - WITHIN <= ratio <= 1 + WITHIN for ratio in ratios)
    found = f"{min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} cases"
    outcome.targets.append(Target(f"every estimate within {WITHIN:.0%} of the peak", met, found))


def _print_table(outcome: Outcome) -> None:
    """For docs/concepts/devices-and-fit.md: a line for each model and length, a column for each engine."""
    engines = list(dict.fromkeys(row.subject for row in outcome.rows))
    print(f"\n| expected / peak, MiB | {' | '.join(engines)} |\n| --- |{' ---: |' * len(engines)}")
    for what in dict.fromkeys(row.metric.partition(": ")[0] for row in outcome.rows):
        cells: list[str] = []
        for engine in engines:
            expected, peak = (outcome.find(f"{what}: {part}", engine) for part in ("expected", "peak"))
            if expected is None or peak is None:
                cells.append("–")
                continue
            ratio = expected.median / peak.median
            cells.append(f"{expected.median:,.0f} / {peak.median:,.0f} ({ratio - 1:+.0%})")
        print(f"| {what} | {' | '.join(cells)} |")


def _mib(peak: Peak) -> str:
    return f"{peak.total / MIB:.0f} MiB (anonymous {peak.anonymous / MIB:.0f}, files {peak.files / MIB:.0f})"


if __name__ == "__main__":
    main()
