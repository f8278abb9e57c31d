"""From the call that deploys to the first token of an answer, on a running server, the artifact cached.

    python -m bench.deploy_to_token [--rounds N] [--quick] [--json FILE] [--peers none]

SmolLM2-135M, converted to CTranslate2 int8 by Dockyard. Each round deploys under a new name, asks until the first
token comes, and takes the deployment away again. Ray Serve deploys an application that loads the same files.
"""

import contextlib
import datetime
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from bench.models import BenchModel, ensure_endless_smollm2
from bench.outcome import DOCKYARD, Outcome, parse_arguments, parser, recording
from bench.peers.ray_serve import RayOptions, RayServe
from bench.processes import BenchFailed
from bench.server import INT8, DockyardServer

RAY = "ray serve"
FIRST_TOKEN = "deploy to first token"
ROLLBACK = "rollback until it serves"
TIMEOUT_S = 120
PROMPT = "Once upon a time"


def main() -> None:
    words = parser(__doc__)
    words.add_argument("--peers", help="`none` measures Dockyard alone")
    arguments = parse_arguments(words, rounds=7, quick_rounds=3)
    model = ensure_endless_smollm2()
    question = "How long from the call that deploys to the first token, when the model was converted before?"
    with recording(arguments, "deploy_to_token", "From deploy to the first token", question) as outcome:
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(DockyardServer())
            model_id = server.import_model(model.folder, "smollm2")
            began = time.monotonic()
            server.deploy(model_id, "first", INT8)
            outcome.remarks.append(f"The first deploy, with the conversion: {time.monotonic() - began:.1f} s.")
            server.undeploy(model_id, "first")
            ray = _start_ray(outcome, stack, model) if arguments.options.peers != "none" else None
            for number in range(arguments.rounds):
                deploy_on_dockyard(outcome, server, model_id, number)
                if ray is not None:
                    deploy_on_ray(outcome, ray, number)
        outcome.compare(FIRST_TOKEN, DOCKYARD, RAY, better="lower")
        outcome.judge("deploy to first token ≤ 0.6 s", FIRST_TOKEN, DOCKYARD, "<=", 0.6)


def _start_ray(outcome: Outcome, stack: contextlib.ExitStack, model: BenchModel) -> RayServe | None:
    cores = len(os.sched_getaffinity(0))
    options = RayOptions(
        app="generate", deployed=0, artifact=str(model.ctranslate2), model=str(model.folder), threads=cores, ongoing=4
    )
    try:
        ray = stack.enter_context(RayServe(options))
    except BenchFailed as error:
        outcome.not_run[RAY] = str(error)
        return None
    outcome.versions[RAY] = ray.version
    outcome.remarks.append(f"Ray Serve itself took {ray.started_in_s:.1f} s to start.")
    return ray


def deploy_on_dockyard(outcome: Outcome, server: DockyardServer, model_id: str, number: int) -> None:
    name = f"round {number}"
    began = time.monotonic()
    job_id = server.begin_deploy(model_id, name, INT8)
    body = {"model": name, "prompt": PROMPT, "max_tokens": 8, "stream": True}
    came = first_token_at(f"{server.url}/v1/completions", body, server.inference_headers())
    outcome.add(number, FIRST_TOKEN, "s", DOCKYARD, came - began)
    job = server.wait_job(job_id)
    for entry in job["statusLogs"]:
        if entry["finishedOn"]:
            took = (_instant(entry["finishedOn"]) - _instant(entry["startedOn"])).total_seconds()
            outcome.add(number, f"of it {entry['phase']}", "s", DOCKYARD, took)
    for step, took_ms in server.replicas(job["deploymentId"])[0]["timings"].items():
        outcome.add(number, f"the replica's {step}", "ms", DOCKYARD, took_ms)
    roll_back(outcome, server, model_id, name, job["deploymentId"], number)
    server.undeploy(model_id, name)


def roll_back(
    outcome: Outcome, server: DockyardServer, model_id: str, name: str, deployment_id: str, number: int
) -> None:
    """To the version before, which is not loaded any more: from the call until the job says that it serves."""
    server.deploy(model_id, name, INT8, maxTokens=256)
    began = time.monotonic()
    server.wait_job(server.call("POST", f"/deployments/{deployment_id}/rollback", {"version": 1})["dockStatusId"])
    outcome.add(number, ROLLBACK, "s", DOCKYARD, time.monotonic() - began)


def deploy_on_ray(outcome: Outcome, ray: RayServe, number: int) -> None:
    name = f"round{number}"
    deploying = threading.Thread(target=ray.deploy, args=(name,))
    began = time.monotonic()
    deploying.start()
    try:
        came = first_token_at(f"{ray.url}/{name}", {"prompt": PROMPT, "max_tokens": 8}, {})
    finally:
        deploying.join()
    outcome.add(number, FIRST_TOKEN, "s", RAY, came - began)
    ray.delete(name)


def first_token_at(url: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> float:
    """Ask, every 5 ms while refused, until a token comes; the instant it came."""
    deadline = time.monotonic() + TIMEOUT_S
    refused = "nothing"
    with httpx.Client(timeout=TIMEOUT_S, trust_env=False, headers=dict(headers)) as client:
        while time.monotonic() < deadline:
            with client.stream("POST", url, json=body) as reply:
                if reply.status_code == 200:
                    return _first_token(reply.iter_lines, time.monotonic)
                refused = f"{reply.status_code} {reply.read()[:200]!r}"
            time.sleep(0.005)
    raise BenchFailed(f"no token within {TIMEOUT_S} s; the last reply was {refused}")


def _first_token(lines: Callable[[], Any], now: Callable[[], float]) -> float:
    for line in lines():
        came = now()
        told = line.removeprefix("data: ")
        if told.startswith("{") and any(choice.get("text") for choice in json.loads(told)["choices"]):
            return came
    raise BenchFailed("a reply without a token")


def _instant(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


if __name__ == "__main__":
    main()
