"""How many threads a replica should have, and how long they should spin: generated tokens/s of real replicas.

SmolLM2 on CTranslate2 (int8) and on Transformers behind the local fleet, laid out as 1, 2 … replicas of 1, 2 … threads.
All layouts wait loaded; in every round each is measured in turn, with one request and with as many as fill the batches
of all its replicas. `--spins` measures the layouts of one replica with other spin counts, too, alone and beside one
process that keeps a core busy.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from bench.models import BenchModel, ensure_endless_smollm2
from bench.outcome import Arguments, Outcome, parse_arguments, parser, recording
from bench.processes import BenchFailed
from bench.replicas import serving, worker_spec
from dockyard.clock import SystemClock
from dockyard.fleets.local.fleet import WORKER_COMMAND, LocalFleet
from dockyard.protocols.fleet import ReplicaStatus
from dockyard.protocols.generation import TOKEN_HEADER, GenerateRequest, WorkerSpec, decode_event, encode_request

BATCH = 10
TOKENS = 24
ENGINES = ("ctranslate2", "transformers")
OURS = "ours"  # what the fleet sets
SPINS = ("library's", "500")


@dataclass(frozen=True)
class Layout:
    engine: str
    replicas: int
    threads: int
    spin: str = OURS

    def __str__(self) -> str:
        spin = "" if self.spin == OURS else f", spins {self.spin}"
        return f"{self.engine} {self.replicas} × {self.threads} thread(s){spin}"


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--only", nargs="+", choices=ENGINES, help="these engines alone")
    options.add_argument("--spins", action="store_true", help="other spin counts, too, and a busy neighbour")
    arguments = parse_arguments(options, rounds=5)
    question = f"Generated tokens/s of all replicas together, {TOKENS} tokens a request, batches of at most {BATCH}"
    with recording(arguments, "replica_threads", "Replicas and threads", question) as outcome:
        asyncio.run(_measure(arguments, outcome))


def layouts(engines: Sequence[str], cores: int, spins: bool) -> list[Layout]:
    """One replica or as many as there are cores, of one thread, of a fair share, or of all cores."""
    made = [
        Layout(engine, replicas, threads)
        for engine in engines
        for replicas in sorted({1, 2, cores})
        for threads in sorted({1, max(1, cores // replicas), cores})
    ]
    extra = [Layout(one.engine, 1, one.threads, spin) for one in made for spin in SPINS if one.replicas == 1]
    return made + [one for one in extra if spins and one.threads > 1]


async def _measure(arguments: Arguments, outcome: Outcome) -> None:
    model = ensure_endless_smollm2()
    engines = arguments.options.only or ENGINES
    wanted = layouts(engines, len(os.sched_getaffinity(0)), arguments.options.spins)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        asks = {layout: await stack.enter_async_context(_running(folder, model, layout)) for layout in wanted}
        for number in range(arguments.rounds):
            for layout, ask in asks.items():
                for company in ("alone", "beside a busy process") if arguments.options.spins else ("alone",):
                    with _busy(company != "alone"):
                        for requests in (1, BATCH * layout.replicas):
                            rate = await ask(requests)
                            full = "one request" if requests == 1 else "full batches"
                            outcome.add(number, f"{full}, {company}", "tokens/s", str(layout), rate)
                            print(f"round {number + 1} {layout}, {full}, {company}: {rate:.1f} tokens/s", flush=True)
    for engine in engines:
        one = Layout(engine, 1, 1)
        for layout in wanted:
            if layout.engine == engine and layout != one:
                outcome.compare("full batches, alone", str(layout), str(one), better="higher")


@asynccontextmanager
async def _running(folder: Path, model: BenchModel, layout: Layout) -> AsyncIterator["_Ask"]:
    """The layout's replicas, ready."""
    fleet = LocalFleet(folder / f"{layout}".replace("/", "-"), SystemClock(), command=_command(layout.spin))
    await fleet.open([])
    try:
        started = [await serving(fleet, _spec(model, layout)) for _ in range(layout.replicas)]
        async with AsyncExitStack() as stack:
            yield _Ask([await stack.enter_async_context(_client(status)) for status in started])
    finally:
        await fleet.close(stop_replicas=True)


def _command(spin: str) -> tuple[str, ...]:
    """The worker's, with the fleet's own spin count replaced where the layout says so."""
    if spin == OURS:
        return WORKER_COMMAND
    return ("env", "-u", "GOMP_SPINCOUNT", *([] if spin == SPINS[0] else [f"GOMP_SPINCOUNT={spin}"]), *WORKER_COMMAND)


def _spec(model: BenchModel, layout: Layout) -> WorkerSpec:
    artifact = model.artifact(layout.engine)
    return worker_spec(layout.engine, artifact, model.folder, batch=BATCH, threads=layout.threads)


def _client(status: ReplicaStatus) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.UnixConnector(status.address.socket or "", limit=0),
        headers={TOKEN_HEADER: status.address.token, "content-type": "application/json"},
        timeout=aiohttp.ClientTimeout(total=None),
    )


class _Ask:
    def __init__(self, sessions: list[aiohttp.ClientSession]) -> None:
        self._sessions = sessions

    async def __call__(self, requests: int) -> float:
        """Tokens per second over `requests` at once, dealt out evenly."""
        began = asyncio.get_running_loop().time()
        turns = [self._sessions[number % len(self._sessions)] for number in range(requests)]
        counts = await asyncio.gather(*(_one(session) for session in turns))
        return sum(counts) / (asyncio.get_running_loop().time() - began)


async def _one(session: aiohttp.ClientSession) -> int:
    request = GenerateRequest(id="1", prompt="Once upon a time", temperature=0, max_tokens=TOKENS)
    async with session.post("http://replica/generate", data=encode_request.encode(request)) as reply:
        async for line in reply.content:
            if usage := decode_event.decode(line).usage:
                return usage.completion_tokens
    raise BenchFailed("a reply ended early")


@contextmanager
def _busy(wanted: bool) -> Iterator[None]:
    """One process that keeps a core busy while this lasts."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if wanted else None
    try:
        yield
    finally:
        if process is not None:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
