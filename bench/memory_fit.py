"""What a replica was expected to need of a host's memory, over the most that it really had.

Every model of the tests and a larger one, on every engine of a CPU, in every precision.
Each replica is a process of its own, as the fleet starts them, without a spare. A full batch of rows that fill the
context is sent, and as many more as the reserve takes; then the peak of its memory is read (`bench/peak.py` says how).
"""

import asyncio
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil

from bench.memory_models import ModelShelf, PreparedModel
from bench.outcome import Arguments, Outcome, Target, parse_arguments, parser, recording
from bench.peak import Peak, PeakWatch
from bench.processes import BenchFailed
from bench.replicas import serving
from dockyard.clock import SystemClock
from dockyard.domain.batching import reserve_rows
from dockyard.domain.card import Family
from dockyard.domain.compatibility import compute_type
from dockyard.domain.fit import HOST_CONTEXT, UNBOUNDED_CONTEXT
from dockyard.domain.ids import new_id
from dockyard.domain.memory import memory_need
from dockyard.domain.spec import EngineName, Quantization
from dockyard.domain.threads import threads_per_replica
from dockyard.fleets.local.fleet import LocalFleet
from dockyard.protocols.fleet import ReplicaStatus
from dockyard.protocols.generation import TOKEN_HEADER, GenerateRequest, WorkerSpec, decode_event, encode_request

MODELS = ("t5-date", "gpt2-kjv", "SmolLM2-135M", "random Llama")
CELLS = (
    (EngineName.TRANSFORMERS, Quantization.NONE),
    (EngineName.CTRANSLATE2, Quantization.NONE),
    (EngineName.CTRANSLATE2, Quantization.INT8_FLOAT16),
)
WITHIN = 0.15
BATCH = 10
NEW_TOKENS = 24
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
    options.add_argument("--batch", type=int, default=BATCH, help=f"maxBatchSize (default {BATCH})")
    arguments = parse_arguments(options, rounds=1, quick_rounds=1)
    question = "The memory that one replica is expected to need, over the most that it had under a full batch"
    with recording(arguments, "memory_fit", "Memory: estimate and peak", question) as outcome:
        shelf = ModelShelf()
        for name in arguments.options.only or MODELS:
            model = shelf.model(name)
            for engine, quantization in CELLS:
                if arguments.options.engine in (None, engine):
                    subject = Subject(model, engine, quantization, shelf.artifact(model, engine, quantization))
                    asyncio.run(_measure(arguments, outcome, subject))
        _judge(outcome)
    _print_table(outcome)


async def _measure(arguments: Arguments, outcome: Outcome, subject: Subject) -> None:
    batch: int = arguments.options.batch
    contexts = [subject.longest // 4, *([] if arguments.quick else [subject.longest])]
    with tempfile.TemporaryDirectory() as folder:
        fleet = LocalFleet(Path(folder), SystemClock(), warm_spares=False)
        await fleet.open([])
        try:
            for number in range(arguments.rounds):
                spec = _spec(subject, batch)
                status = await serving(fleet, spec)
                for context in contexts:
                    with PeakWatch(status.pid or 0) as watch:
                        await _fill(status, subject, batch, context)
                    _tell(outcome, number, subject, batch, context, watch.peak)
                await fleet.stop(spec.replica_id, grace_s=10)
        finally:
            await fleet.close(stop_replicas=True)


def _spec(subject: Subject, batch: int) -> WorkerSpec:
    """No text ends before its length: the end is a token that none of the models says."""
    card = subject.model.card
    return WorkerSpec(
        replica_id=new_id("rp"),
        token="bench",
        engine=str(subject.engine),
        artifact_dir=str(subject.artifact),
        model_dir=str(subject.model.folder),
        family=str(card.family),
        device="cpu",
        compute_type=subject.compute,
        max_batch_size=batch,
        context_length=card.context_length,
        threads=threads_per_replica(subject.engine, card.parameters, psutil.cpu_count() or 1, 1),
        eos_token_ids=[card.vocab_size - 1],
        decoder_start_token_id=card.decoder_start_token_id,
    )


async def _fill(status: ReplicaStatus, subject: Subject, batch: int, context: int) -> None:
    """A full batch that runs long, then rows of as many tokens that end soon: those go to the reserve beside it.

    Not all rows of the batch are of one length, as in life: engines that pad do it, and build the mask that it takes.
    """
    long = [_request(subject, context - number % _LENGTHS, NEW_TOKENS) for number in range(batch)]
    short = [_request(subject, context, 1) for _ in range(reserve_rows(batch))]
    connector = aiohttp.UnixConnector(status.address.socket or "", limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(_ask(session, status, request) for request in (*long, *short)))


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
    what, engine = f"{subject.model.name}, {context} tokens", f"{subject.engine} {subject.compute}"
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
