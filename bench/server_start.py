"""How fast the server starts, and what it costs while nobody asks for anything.

    python -m bench.server_start [--rounds N] [--quick] [--json FILE] [--peers none] [--deployments 10]

A start counts until the server says that it is ready. Memory is that of all its processes, a shared page counted once
(PSS), or once for each (RSS). Idle CPU is measured with ten deployments of one replica each, which all answered once.
"""

import json
import math
import time
from collections.abc import Callable

from bench.load import Plan, run_load
from bench.outcome import DOCKYARD, Outcome, parse_arguments, parser, recording
from bench.peers.ray_serve import RayOptions, RayServe
from bench.processes import BenchFailed, Usage
from bench.server import DockyardServer, echo_model

RAY = "ray serve"
START = "start until ready"
AGAIN = "start after kill -9 until a deployment serves"
PSS, RSS = "idle memory, PSS", "idle memory, RSS"
SETTLE_S = 2.0  # what a start leaves to do is done by then


def main() -> None:
    words = parser(__doc__)
    words.add_argument("--peers", help="`none` measures Dockyard alone")
    words.add_argument("--deployments", type=int, default=10)
    arguments = parse_arguments(words, rounds=5)
    deployments: int = arguments.options.deployments
    idle_s = 10.0 if arguments.quick else 60.0
    question = "How long until the server is ready, how much memory does it hold, and what does idling cost?"
    with recording(arguments, "server_start", "Start and idling", question) as outcome:
        for number in range(arguments.rounds):
            start_dockyard(outcome, number)
            if arguments.options.peers != "none" and RAY not in outcome.not_run:
                start_ray(outcome, number)
        restart_dockyard(outcome, arguments.rounds)
        idle_dockyard(outcome, deployments, idle_s)
        if arguments.options.peers != "none" and RAY not in outcome.not_run:
            idle_ray(outcome, deployments, idle_s)
        judge(outcome, deployments)


def start_dockyard(outcome: Outcome, number: int) -> None:
    """The first start makes database and key; the one that counts for most is any later one. Both are told."""
    with DockyardServer() as server:
        outcome.add(number, f"{START}, the first time", "s", DOCKYARD, server.started_in_s)
        server.stop()
        server.start()
        outcome.add(number, START, "s", DOCKYARD, server.started_in_s)
        time.sleep(SETTLE_S)
        _add_memory(outcome, number, DOCKYARD, server.usage())


def restart_dockyard(outcome: Outcome, rounds: int) -> None:
    """Its replica runs on meanwhile and is adopted. A first client asks as soon as somebody listens."""
    with DockyardServer() as server:
        server.deploy(server.import_model(echo_model(server.folder / "echo")), "echo")
        for number in range(rounds):
            server.kill()
            server.start(ask={"model": "echo", "prompt": "hi", "max_tokens": 2})
            outcome.add(number, AGAIN, "s", DOCKYARD, server.served_in_s or math.inf)


def start_ray(outcome: Outcome, number: int) -> None:
    try:
        with RayServe(RayOptions(deployed=0)) as ray:
            outcome.versions[RAY] = ray.version
            outcome.add(number, START, "s", RAY, ray.started_in_s)
            time.sleep(SETTLE_S)
            _add_memory(outcome, number, RAY, ray.usage())
    except BenchFailed as error:
        outcome.not_run[RAY] = str(error)


def idle_dockyard(outcome: Outcome, deployments: int, seconds: float) -> None:
    with DockyardServer() as server:
        model_id = server.import_model(echo_model(server.folder / "echo"))
        for number in range(deployments):
            server.deploy(model_id, f"echo {number}")
            body = json.dumps({"model": f"echo {number}", "prompt": "hi", "max_tokens": 2}).encode()
            headers = server.inference_headers()
            run_load(Plan(url=f"{server.url}/v1/completions", bodies=[body], headers=headers, requests=1))
        time.sleep(SETTLE_S)
        whole, alone = _idle(deployments), _idle(deployments, "server alone")
        before = server.server_usage().cpu_s
        _add_idling(outcome, whole, DOCKYARD, server.usage, seconds)
        outcome.add(0, alone, "% of a core", DOCKYARD, 100 * (server.server_usage().cpu_s - before) / seconds)
        outcome.add(0, f"memory with {deployments} deployments, PSS", "MiB", DOCKYARD, server.usage().pss_mib)


def idle_ray(outcome: Outcome, deployments: int, seconds: float) -> None:
    try:
        with RayServe(RayOptions(deployed=deployments)) as ray:
            time.sleep(SETTLE_S)
            _add_idling(outcome, _idle(deployments), RAY, ray.usage, seconds)
            outcome.add(0, f"memory with {deployments} deployments, PSS", "MiB", RAY, ray.usage().pss_mib)
    except BenchFailed as error:
        outcome.not_run[f"{RAY}, {deployments} deployments"] = str(error)


def judge(outcome: Outcome, deployments: int) -> None:
    for metric in (START, PSS, RSS, _idle(deployments), f"memory with {deployments} deployments, PSS"):
        outcome.compare(metric, DOCKYARD, RAY, better="lower")
    outcome.judge("start ≤ 1.5 s", START, DOCKYARD, "<=", 1.5)
    outcome.judge("deployments serve again within a second of the start", AGAIN, DOCKYARD, "<=", 1)
    outcome.judge("idle memory ≤ 120 MiB", RSS, DOCKYARD, "<=", 120)
    alone = _idle(deployments, "server alone")
    outcome.judge(f"idle CPU of the server with {deployments} deployments < 1 % of a core", alone, DOCKYARD, "<=", 1)


def _idle(deployments: int, what: str = "all processes") -> str:
    return f"idle CPU, {deployments} deployments, {what}"


def _add_memory(outcome: Outcome, number: int, subject: str, used: Usage) -> None:
    outcome.add(number, PSS, "MiB", subject, used.pss_mib)
    outcome.add(number, RSS, "MiB", subject, used.rss_mib)
    outcome.add(number, "processes", "", subject, used.processes)


def _add_idling(outcome: Outcome, metric: str, subject: str, usage: Callable[[], Usage], seconds: float) -> None:
    before = usage().cpu_s
    time.sleep(seconds)
    outcome.add(0, metric, "% of a core", subject, 100 * (usage().cpu_s - before) / seconds)


if __name__ == "__main__":
    main()
