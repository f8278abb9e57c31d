"""The demo's steps on a running server: import, deploy optimized, ask, deploy plain, compare. Started by scripts/demo.

On a terminal it serves until Ctrl-C; without one it stops the server at the end. Exits with 0 only when all went well.
"""

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / ".data" / "demo"
LOG = ROOT / ".data" / "demo.log"
MODEL = "SmolLM2-135M-Instruct"
# Eight bits cost a model of this size some sense: with the longer system message of its own template the optimized one
# answers this question in bad French. So the demo brings its own.
SYSTEM = "You are a helpful AI assistant."
QUESTION = "What is the capital of France?"
LONG_QUESTION = "Write a short story about a lighthouse."
MEASURED_TOKENS = 32
POLL_S = 0.1
START_TIMEOUT_S = 60

Json = dict[str, Any]


class DemoFailed(Exception):
    """The demo cannot go on; the message tells a person why."""


@dataclass
class Answer:
    """What came back, and how fast. `tokens_per_s` counts from the first token on."""

    text: str
    first_token_s: float
    tokens_per_s: float


@dataclass
class Result:
    """One deployment, measured."""

    name: str
    runs_as: str
    deploy_s: float
    answer: Answer
    speed: Answer
    memory_mib: float


def main(model_file: Path) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that `finally` ends the server
    DATA.mkdir(parents=True, exist_ok=True)
    try:
        with serving() as (url, server):
            key = (DATA / "admin-key").read_text().strip()
            with httpx.Client(base_url=url, headers={"x-api-key": key}, timeout=200, trust_env=False) as api:
                show(api, url, key, model_file)
                if sys.stdout.isatty():
                    print("\nServing until Ctrl-C.", flush=True)
                    server.wait()
                    raise DemoFailed(f"the server ended by itself; its log is {LOG}")
                undeploy(api)
    except KeyboardInterrupt:
        return 0 if sys.stdout.isatty() else 130
    except DemoFailed as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    except httpx.HTTPError as error:
        print(f"\nerror: the server does not answer: {error!r}; its log is {LOG}", file=sys.stderr)
        return 1
    return 0


def show(api: httpx.Client, url: str, key: str, model_file: Path) -> None:
    """The demo proper."""
    print(f"\n   KEY=$(cat {(DATA / 'admin-key').relative_to(ROOT)})   # the key in the calls below\n")
    model_id = import_model(api, model_file)
    optimized = {"optimizationType": "ctranslate2", "quantizationType": "int8_float16"}
    fast = deploy_and_measure(api, model_id, "SmolLM2 int8", optimized)
    plain = deploy_and_measure(api, model_id, "SmolLM2 plain", {"optimizationType": "", "quantizationType": ""})
    compare(fast, plain)
    print(f"\nURL   {url}/v1   (any OpenAI client; the API's own documentation: {url}/docs)")
    print(f"key   {key}")
    chat = {"model": fast.name, "messages": conversation(QUESTION), "temperature": 0}
    print(f"\n{curl(f'{url}/v1/chat/completions', key, chat)}")
    for result in (fast, plain):
        if "Paris" not in result.answer.text:
            raise DemoFailed(f"{result.name} was expected to say Paris and said {result.answer.text!r}")


@contextlib.contextmanager
def serving() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server of our own, ended however this ends: SIGTERM, then its own time to drain."""
    port = free_port(8000)
    url = f"http://127.0.0.1:{port}"
    command = [str(Path(sys.executable).with_name("dockyard")), "serve", "--port", str(port), "--data-dir", str(DATA)]
    own = {name: value for name, value in os.environ.items() if not name.startswith("DOCKYARD_")}
    with step(f"Server: dockyard serve --port {port} --data-dir {DATA.relative_to(ROOT)}"), LOG.open("wb") as log:
        # A session of its own: Ctrl-C is for us, and we end the server in order.
        server = subprocess.Popen(command, stdout=log, stderr=log, env=own, start_new_session=True)
    try:
        with step("Ready"):
            wait_ready(url, server)
        yield url, server
    finally:
        if server.poll() is None:
            with step("Stopping the server"):
                server.terminate()
                server.wait()


def wait_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz", trust_env=False).is_success:
                return
        time.sleep(POLL_S)
    tail = "\n".join(LOG.read_text(errors="replace").splitlines()[-10:])
    raise DemoFailed(f"the server did not become ready:\n{tail}")


def free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)) as listener:
            return listener.getsockname()[1]
    raise DemoFailed("no port is free on 127.0.0.1")


def import_model(api: httpx.Client, file: Path) -> str:
    for model in call(api, "GET", "/models?limit=200")["models"]:
        if model["name"] == MODEL and model["state"] == "Ready to Deploy":
            print(f"── Import: {MODEL} is there already")
            return model["modelId"]
    with step(f"Import: POST /api/public/models {{path: {file.name}}}"):
        source = {"path": str(file)}
        reply = call(api, "POST", "/models", {"name": MODEL, "modelType": "openSource", "source": source})
        watch(api, reply["dockStatusId"])
    return reply["modelId"]


def deploy_and_measure(api: httpx.Client, model_id: str, name: str, optimization: Json) -> Result:
    body = {
        "name": name,
        "hyperParameters": {"temperature": 1, "maxTokens": 512, "topP": 1, "topK": 50},
        "deviceType": "g5.xlarge",
        "optimizationInfo": optimization,
    }
    path = f"/models/{model_id}/deploy?modelType=openSource"
    print(f"\n{curl(f'{api.base_url}/api/public{path}', '$KEY', body)}\n")
    began = time.monotonic()
    with step(f"Deploy: {name}"):
        job = watch(api, call(api, "POST", path, body)["dockStatusId"])
    deploy_s = time.monotonic() - began
    runs_on, precision = (str((job["response"] or {}).get(field, "?")) for field in ("runsOn", "computeType"))
    print(f"   runs on {runs_on} in {precision}")
    with step(f"Ask {name}: {QUESTION}"):
        answer = ask(api, name, QUESTION, 64, echo=True)
    with step(f"Measure {name} with {MEASURED_TOKENS} tokens"):
        speed = ask(api, name, LONG_QUESTION, MEASURED_TOKENS, echo=False)
    return Result(name, precision, deploy_s, answer, speed, memory_mib(api, job["deploymentId"]))


def watch(api: httpx.Client, job_id: str) -> Json:
    """Follow a dock status to its end, a line per phase."""
    phase = ""
    while True:
        job = call(api, "GET", f"/dock-status/{job_id}")
        if job["phase"] != phase:
            phase = job["phase"]
            print(f"   {job['percentageComplete']:3} %  {phase:<12}  {job['message']}", flush=True)
        if job["status"] == "FAILED":
            tail = "".join(f"\n  | {line}" for line in job.get("logTail") or ())
            raise DemoFailed(f"{job['message']} ({job['reason']}){tail}")
        if job["status"] == "SUCCESS":
            for warning in job["warnings"]:
                print(f"   note: {warning}")
            return job
        time.sleep(POLL_S)


def ask(api: httpx.Client, deployment: str, question: str, max_tokens: int, *, echo: bool) -> Answer:
    """One streamed question, greedy."""
    body = {
        "model": deployment,
        "messages": conversation(question),
        "temperature": 0,
        "max_tokens": max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    began = time.monotonic()
    first = last = began
    pieces: list[str] = []
    tokens = 0
    with api.stream("POST", "/v1/chat/completions", json=body) as reply:
        if reply.is_error:
            raise DemoFailed(f"the question was refused: {reply.read().decode()}")
        for event in events(reply):
            tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
            piece = "".join(choice["delta"].get("content") or "" for choice in event["choices"])
            if not piece:
                continue
            last = time.monotonic()
            first = first if pieces else last
            pieces.append(piece)
            if echo:
                print(f"{'' if len(pieces) > 1 else '   '}{piece}", end="", flush=True)
    if echo:
        print()
    if not pieces:
        raise DemoFailed(f"{deployment} gave an empty answer")
    return Answer("".join(pieces), first - began, max(0, tokens - 1) / max(last - first, 1e-6))


def conversation(question: str) -> list[Json]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]


def events(reply: httpx.Response) -> Iterator[Json]:
    for line in reply.iter_lines():
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        if line.startswith("data:"):
            event = json.loads(data)
            if "error" in event:
                raise DemoFailed(f"the answer broke off: {event['error']['message']}")
            yield event
    raise DemoFailed("the answer broke off before its end")


def memory_mib(api: httpx.Client, deployment_id: str) -> float:
    """What the deployment's replicas hold in memory now."""
    replicas = call(api, "GET", f"/deployments/{deployment_id}/replicas")["replicas"]
    ready = [replica["pid"] for replica in replicas if replica["state"] == "Ready" and replica["pid"]]
    return sum(psutil.Process(pid).memory_info().rss for pid in ready) / (1 << 20)


def compare(fast: Result, plain: Result) -> None:
    rows = [
        ("", fast.name, plain.name),
        ("precision", fast.runs_as, plain.runs_as),
        ("deploy to serving", f"{fast.deploy_s:.1f} s", f"{plain.deploy_s:.1f} s"),
        ("first token", f"{fast.answer.first_token_s * 1000:.0f} ms", f"{plain.answer.first_token_s * 1000:.0f} ms"),
        ("tokens per second", f"{fast.speed.tokens_per_s:.0f}", f"{plain.speed.tokens_per_s:.0f}"),
        ("memory of the replica", f"{fast.memory_mib:.0f} MiB", f"{plain.memory_mib:.0f} MiB"),
        ("answer", _short(fast.answer.text), _short(plain.answer.text)),
    ]
    print("\n── Compared, on this machine, just now")
    width = max(len(row[1]) for row in rows) + 2
    for head, left, right in rows:
        print(f"   {head:<22} {left:<{width}} {right}")


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39]}…"


def undeploy(api: httpx.Client) -> None:
    """Leave nothing deployed, so that the next demo starts as this one did."""
    for model in call(api, "GET", "/models?limit=200")["models"]:
        if model["name"] == MODEL and call(api, "GET", f"/models/{model['modelId']}/deployments")["deployments"]:
            with step("Undeploy"):
                watch(api, call(api, "POST", f"/models/{model['modelId']}/undeploy")["dockStatusId"])


def call(api: httpx.Client, method: str, path: str, body: Json | None = None) -> Json:
    reply = api.request(method, f"/api/public{path}", json=body)
    if reply.is_error:
        raise DemoFailed(f"{method} {path}: {reply.status_code} {reply.text}")
    return reply.json()


def curl(url: str, key: str, body: Json) -> str:
    """The call as a line for a shell."""
    header = f'"x-api-key: {key}"' if key.startswith("$") else shlex.quote(f"x-api-key: {key}")
    return (
        f"   curl {shlex.quote(url)} \\\n     -H {header} -H 'content-type: application/json' \\\n"
        f"     -d {shlex.quote(json.dumps(body))}"
    )


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Says what comes, and at its end how long it took."""
    print(f"── {title}", flush=True)
    began = time.monotonic()
    yield
    print(f"   {time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
