"""What a replica was expected to need of a host's memory, over the most that it really had.

Every model of the tests and a larger one, on every engine of a CPU, in every precision, for batches of three sizes;
vLLM where its environment is at hand.
Each replica is a process of its own, as the fleet starts them, without a spare. A full batch of rows that fill the
context is sent, and as many more as the reserve takes; then the peak of its memory is read (`bench/peak.py` says how).
Where rows join a batch that runs, there is a burst of rows of many lengths before, and the extra seats are taken, too.
"""

import asyncio
import tempfile
from pathlib import Path

import psutil

from bench.memory_models import ModelShelf
from bench.memory_rows import Subject, fill
from bench.outcome import Arguments, Outcome, Target, parse_arguments, parser, recording
from bench.peak import Peak, PeakWatch, TreeWatch
from bench.replicas import serving, worker_spec
from bench.vllm_python import find_vllm_python
from dockyard.clock import SystemClock
from dockyard.domain.deployment import Runtime
from dockyard.domain.fit import cache_on_a_cpu, host_need
from dockyard.domain.memory import memory_need
from dockyard.domain.spec import EngineName, Quantization
from dockyard.domain.threads import threads_per_replica
from dockyard.engine_environments import EngineEnvironments
from dockyard.fleets.local.fleet import LocalFleet
from dockyard.protocols.generation import WorkerSpec

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
MOST_TOKENS = 16_384  # of a batch together: on two cores more of them take many minutes
MIB = 1 << 20


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
            await fill(status, subject, batch, context)
        _tell(outcome, number, subject, batch, context, watch.peak)
    await fleet.stop(spec.replica_id, grace_s=10)


async def _measure_tree(outcome: Outcome, subject: Subject, number: int, spec: WorkerSpec, fleet: LocalFleet) -> None:
    """Of an engine with several processes, which takes all of its cache when it starts: one context is enough."""
    batch, context = spec.max_batch_size, subject.longest
    begun = await fleet.start(spec)
    with TreeWatch(begun.pid or 0) as watch:
        status = await serving(fleet, spec)
        await fill(status, subject, batch, context)
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


def _tell(outcome: Outcome, number: int, subject: Subject, batch: int, context: int, peak: Peak) -> None:
    card, engine, compute = subject.model.card, subject.engine, subject.compute
    if engine is EngineName.VLLM:  # its cache has room for a row of all that it serves, whatever comes
        need = host_need(card, engine, compute, batch)
    else:
        need = memory_need(card, engine, compute, "cpu", batch, context)
    what, whose = f"{subject.model.name}, {batch} × {context} tokens", f"{engine} {compute}"
    outcome.add(number, f"{what}: peak", "MiB", whose, peak.total / MIB)
    outcome.add(number, f"{what}: expected", "MiB", whose, need.total_bytes / MIB)
    outcome.add(number, f"{what}: expected ÷ peak", "", whose, need.total_bytes / peak.total)
    print(f"{what}, {whose}: {_mib(peak)}; expected {need.total_bytes / MIB:.0f} MiB", flush=True)


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
