"""What a server costs while nobody asks for anything: CPU of it and of each replica, with ten idle deployments.

    python -m bench.soak_idle [--seconds 60] [--deployments 10] [--rounds N] [--json FILE] [--quick]

A round is so many seconds without one request. CPU time is read in nanoseconds, from the scheduler's own account.
"""

import asyncio
import contextlib
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from bench.outcome import DOCKYARD, Arguments, Outcome, parse_arguments, parser, recording
from bench.soak import MODELS
from bench.soak_server import SoakServer

SETTLE_S = 3.0  # for what follows a deploy: connections, first rounds of the loops
LIMIT = 1.0  # percent of a core


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--seconds", type=float, help="of each round")
    made.add_argument("--deployments", type=int, default=10)
    arguments = parse_arguments(made, rounds=2, quick_rounds=1)
    question = f"What does it cost to have {arguments.options.deployments} deployments that nobody asks?"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: with all that was started
    with recording(arguments, "soak_idle", "Idle", question) as outcome:
        asyncio.run(measure(arguments, outcome))
        outcome.judge(f"the server takes less than {LIMIT:g} % of a core", "CPU of the server", DOCKYARD, "<=", LIMIT)
        outcome.judge(f"… and so with all replicas together ({LIMIT:g} %)", "CPU of all", DOCKYARD, "<=", LIMIT)
    sys.exit(any(target.met is False for target in outcome.targets))


async def measure(arguments: Arguments, outcome: Outcome) -> None:
    seconds = arguments.options.seconds or (5.0 if arguments.quick else 60.0)
    async with _idle_server(arguments.options.deployments) as server:
        for number in range(arguments.rounds):
            replicas = [worker.pid for worker in server.workers()]
            before = {pid: _cpu_ns(pid) for pid in (server.pid, *replicas)}
            wakes_before = _wakes(server.pid)
            await asyncio.sleep(seconds)
            percent = {pid: (_cpu_ns(pid) - ns) / seconds / 1e7 for pid, ns in before.items()}
            wakes = (_wakes(server.pid) - wakes_before) / seconds
            outcome.add(number, "CPU of the server", "%", DOCKYARD, percent[server.pid])
            outcome.add(number, "times a second that the server wakes", "", DOCKYARD, wakes)
            for pid in replicas:
                outcome.add(number, "CPU of a replica", "%", DOCKYARD, percent[pid])
            outcome.add(number, "CPU of all", "%", DOCKYARD, sum(percent.values()))


@contextlib.asynccontextmanager
async def _idle_server(deployments: int) -> AsyncIterator[SoakServer]:
    """A server with so many deployments of the echo engine, one replica each, and nothing to do."""
    with tempfile.TemporaryDirectory(prefix="soak-idle-") as folder:
        server = SoakServer(Path(folder))
        async with server.running():
            model_id = await server.import_model(MODELS / "echo")
            for number in range(deployments):
                await server.job(await server.post(f"/models/{model_id}/deploy?modelType=openSource", _wish(number)))
            await asyncio.sleep(SETTLE_S)
            yield server
            await server.stop()


def _wish(number: int) -> dict[str, object]:
    return {
        "name": f"idle {number}",
        "hyperParameters": {"temperature": 1, "maxTokens": 512, "topP": 1, "topK": 50},
        "scalingParameters": {"minReplicas": 1, "maxReplicas": 4, "scaleUpDelay": 30, "scaleDownDelay": 600},
        "deviceType": "g5.xlarge",
    }


def _cpu_ns(pid: int) -> int:
    """Nanoseconds on a CPU of all threads that live."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def _wakes(pid: int) -> int:
    """How often a thread of the process has waited and gone on."""
    return sum(
        int(line.split()[1])
        for path in Path(f"/proc/{pid}/task").glob("*/status")
        for line in path.read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    )


if __name__ == "__main__":
    main()
