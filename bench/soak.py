"""Everything at once, and nothing may be lost: load in bursts, scaling, redeploys, rollbacks, `kill -9` of everybody.

    python -m bench.soak [--requests 10000] [--seed N] [--engine vllm] [--json FILE] [--quick]

Half of the requests stream; each answer is checked byte for byte (echo) or date for date (t5-date). With
`--engine vllm` GPT-2 writes verses on vLLM in place of the dates; fewer of all, since each of its starts takes long.
A request is lost when it is answered wrongly, or not at all although the server ran. Between the cycles of load
everything comes to rest, and the server's memory and descriptors are looked at. Ends with 1 when anything was lost,
leaked or left behind.
"""

import asyncio
import contextlib
import json
import random
import shutil
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from bench.outcome import parse_arguments, parser, recording
from bench.soak_answers import DATES, ECHO, VERSE_STARTS, VERSE_TOKENS, VERSES, Expected, Verse, make_ask
from bench.soak_chaos import FULL, QUICK, SLOW, Chaos, Deployed, plan_acts
from bench.soak_judgement import Findings, Plan, judge
from bench.soak_load import Clients, cycle_of
from bench.soak_server import SoakServer
from bench.soak_vitals import left_behind, look_at
from bench.vllm_python import vllm_python

MODELS = Path(__file__).resolve().parents[1] / "tests" / "models"
STEP_MS = 4  # of the echo engine, a token: long enough for demand to build up and for a kill to meet a stream
REQUESTS, SLOW_REQUESTS, QUICK_REQUESTS = 10_000, 600, 300
REQUESTS_A_CYCLE, SLOW_REQUESTS_A_CYCLE = 500, 150
SLOW_PATIENCE = 6.0
REST_S = 90.0  # for everything to scale back and settle: the autoscaler waits up to 38 s after it regretted often
# So long nothing may change for it to be rest: longer than the gateway keeps an idle connection to a replica (4 s), and
# than the time until a new replica is first probed (5 s), which opens one.
SETTLED_S, QUICK_SETTLED_S = 6.0, 0.5
LOOK_S = 0.1


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--requests", type=int)
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--engine", choices=("ctranslate2", "vllm"), default="ctranslate2")
    made.add_argument("--min-replicas", type=int)
    made.add_argument("--max-replicas", type=int)
    made.add_argument("--keep", action="store_true", help="keep the server's data directory and log, and say where")
    arguments = parse_arguments(made, rounds=1, quick_rounds=1)
    options = arguments.options
    replicas = {name: getattr(options, name) for name in ("min_replicas", "max_replicas") if getattr(options, name)}
    plan = make_plan(options.quick, options.requests, options.seed, engine=options.engine, **replicas)
    question = f"Does any of {plan.requests:,} requests get lost, and does anything leak?"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: with all that was started
    with recording(arguments, "soak", "Soak", question) as outcome, _folder(options.keep) as folder:
        judge(outcome, asyncio.run(soak(plan, folder)))
    sys.exit(any(target.met is False for target in outcome.targets))


def make_plan(
    quick: bool,
    requests: int | None = None,
    seed: int = 1,
    *,
    engine: str = "ctranslate2",
    min_replicas: int | None = None,
    max_replicas: int | None = None,
) -> Plan:
    """What is done, and when, all by the seed. `quick`: fewer of everything; so it is with vLLM, of which two replicas
    run at the least: the one goes on while the other one starts.
    """
    slow = engine == "vllm"
    requests = requests or (QUICK_REQUESTS if quick else SLOW_REQUESTS if slow else REQUESTS)
    acts = plan_acts(random.Random(seed), QUICK if quick else SLOW if slow else FULL, requests)
    cycles = 2 if quick else max(2, round(requests / (SLOW_REQUESTS_A_CYCLE if slow else REQUESTS_A_CYCLE)))
    return Plan(
        requests=requests,
        seed=seed,
        acts=acts,
        cycles=cycles,
        min_replicas=min_replicas or (2 if slow else 1),
        max_replicas=max_replicas or (3 if slow else 4),
        settled_s=QUICK_SETTLED_S if quick else SETTLED_S,
        engine=engine,
        patience=SLOW_PATIENCE if slow else 1.0,
    )


async def soak(plan: Plan, folder: Path) -> Findings:
    """The whole soak on a server of its own."""
    python = {"DOCKYARD_VLLM_PYTHON": str(vllm_python())} if plan.engine == "vllm" else None
    server = SoakServer(folder, patience=plan.patience, environment=python)
    async with server.running():
        deployed = await _deploy_all(server, plan, folder)
        verses = await _verses(server) if plan.engine == "vllm" else []
        chaos = Chaos(server, deployed, plan.acts, plan.seed, patience=plan.patience)
        clients = Clients(server, chaos.begin)
        found = Findings(plan, clients.tally, chaos, server, [], [])
        async with chaos.at_work():
            await _cycles(found, clients, deployed, verses)
        found.exit_code = await server.stop()
        found.left = left_behind(server)
    return found


async def _verses(server: SoakServer) -> list[Verse]:
    """The table of right answers: each asked for alone, before anything goes wrong."""
    verses: list[Verse] = []
    for prompt in VERSE_STARTS:
        for tokens in VERSE_TOKENS:
            asked = Verse(prompt, tokens, Expected("", ""), 0, 0)
            told = await server.complete(asked.body)
            usage, (choice,) = told["usage"], told["choices"]
            right = Expected(choice["text"], choice["finish_reason"])
            verses.append(Verse(prompt, tokens, right, usage["prompt_tokens"], usage["completion_tokens"]))
    return verses


async def _cycles(found: Findings, clients: Clients, deployed: Sequence[Deployed], verses: Sequence[Verse]) -> None:
    plan, server = found.plan, found.server
    rng = random.Random(f"{plan.seed}/load")
    asks = (make_ask(plan.seed, number, verses) for number in range(plan.requests))
    for cycle in range(plan.cycles):
        count = plan.requests * (cycle + 1) // plan.cycles - plan.requests * cycle // plan.cycles
        async with _watching(server, deployed) as peak:
            await clients.run(cycle_of(rng, count), asks)
            await found.chaos.settled()
        found.peaks.append(dict(peak))
        try:
            await _rest(server, deployed, plan)
        except TimeoutError as error:
            found.restless.append(f"no rest after cycle {cycle + 1}: {error}")
        found.looks.append(look_at(server, clients.tally.answered))
        _say(found, cycle)


async def _deploy_all(server: SoakServer, plan: Plan, folder: Path) -> list[Deployed]:
    """Both models, imported and deployed side by side."""
    echo = folder / "echo"
    shutil.copytree(MODELS / "echo", echo)
    config = json.loads((echo / "config.json").read_text())
    (echo / "config.json").write_text(json.dumps(config | {"step_ms": STEP_MS}))

    async def deploy(model: Path, wish: dict[str, Any]) -> Deployed:
        model_id = await server.import_model(model)
        job = await server.job(await server.post(f"/models/{model_id}/deploy?modelType=openSource", wish))
        return Deployed(job["deploymentId"], model_id, wish)

    model, name = ("gpt2-kjv", VERSES) if plan.engine == "vllm" else ("t5-date", DATES)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(deploy(echo, _wish(ECHO, plan, "", batch=4))),
            group.create_task(deploy(MODELS / model, _wish(name, plan, plan.engine, batch=2))),
        ]
    return [task.result() for task in tasks]


def _wish(name: str, plan: Plan, engine: str, batch: int) -> dict[str, Any]:
    """The delays of the published sample; small batches, so that the load is more than one replica's."""
    return {
        "name": name,
        "hyperParameters": {"temperature": 1, "maxTokens": 512, "topP": 1, "topK": 50, "stopSequence": []},
        "scalingParameters": {
            "maxBatchSize": batch,
            "minReplicas": plan.min_replicas,
            "maxReplicas": plan.max_replicas,
            "scaleUpDelay": 30,
            "scaleDownDelay": 600,
        },
        "deviceType": "g5.xlarge",
        "optimizationInfo": {"optimizationType": engine, "quantizationType": ""},
    }


@contextlib.asynccontextmanager
async def _watching(server: SoakServer, deployed: Sequence[Deployed]) -> AsyncIterator[dict[str, int]]:
    """The most replicas that each deployment had ready inside this."""
    peak: dict[str, int] = defaultdict(int)

    async def watch() -> None:
        while True:
            for one in deployed:
                told = await server.replicas(one.deployment_id)
                versions = [replica["version"] for replica in told if replica["state"] == "Ready"]
                peak[one.name] = max(peak[one.name], *(versions.count(version) for version in {0, *versions}))
            await asyncio.sleep(0.1)

    watcher = asyncio.create_task(watch())
    try:
        yield peak
    finally:
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher


async def _rest(server: SoakServer, deployed: Sequence[Deployed], plan: Plan) -> None:
    """Wait until each deployment has exactly its least replicas, ready, and nothing comes or goes any more."""
    state = ""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(REST_S * plan.patience):
            process = psutil.Process(server.pid)
            before, since = (-1, -1), loop.time()
            while loop.time() < since + plan.settled_s:
                # Before the questions: the server may still be closing their connections after them. Spares are among
                # the processes, so no number is right.
                counts = (process.num_fds(), len(server.workers()))
                states = {one.name: [r["state"] for r in await server.replicas(one.deployment_id)] for one in deployed}
                state = f"replicas {states}, {counts[0]} descriptors, {counts[1]} processes"
                if counts != before or any(told != ["Ready"] * plan.min_replicas for told in states.values()):
                    before, since = counts, loop.time()
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise TimeoutError(f"after {REST_S * plan.patience:.0f} s: {state}") from None


def _say(found: Findings, cycle: int) -> None:
    look, tally = found.looks[-1], found.tally
    peak = ", ".join(f"{name} to {count}" for name, count in found.peaks[-1].items())
    print(
        f"cycle {cycle + 1}: {tally.answered} answered, {len(tally.lost)} lost, {tally.cut} cut; {peak}; at rest "
        f"{look.uss_mib:.1f} MiB, {look.fds} descriptors, {look.workers} processes, {look.zombies} zombies",
        flush=True,
    )


@contextlib.contextmanager
def _folder(keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        yield folder
    finally:
        if keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
