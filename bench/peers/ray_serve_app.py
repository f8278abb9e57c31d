"""Ray Serve with applications of ours; run by the Python of its own environment, ended by SIGTERM.

`--app noop` answers at once, `pause` after a fixed time, `generate` with a CTranslate2 model. A small HTTP server on
`--control-port` deploys and tells the replicas, in the place of a client of Ray's own Python API.
"""

import argparse
import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

REPLY = {
    "id": "cmpl-0",
    "created": 0,
    "model": "echo",
    "choices": [{"index": 0, "text": "hi", "finish_reason": "length", "logprobs": None}],
    "usage": {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4},
    "object": "text_completion",
}


class Noop:
    """Reads the request, answers."""

    async def __call__(self, request: Request) -> Response:
        if request.method == "POST":  # a GET asks whether it is there
            await request.json()
        return JSONResponse(REPLY)


class Pause:
    """Streams a first piece at once and a last one `seconds` later, as an engine with a fixed speed would."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def __call__(self, request: Request) -> Response:
        if request.method == "GET":
            return JSONResponse(REPLY)
        await request.json()
        return StreamingResponse(self._stream(), media_type="text/event-stream")

    async def _stream(self) -> AsyncIterator[str]:
        yield _event("h")
        await asyncio.sleep(self._seconds)
        yield "data: [DONE]\n\n"


class Generate:
    """A CTranslate2 model with `ongoing` workers; the tokens are streamed as they come. It is warm when it is there."""

    def __init__(self, artifact: str, model: str, threads: int, ongoing: int) -> None:
        import ctranslate2
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
        # as many workers as there are requests at once: one worker would run them one after the other
        self._generator = ctranslate2.Generator(
            artifact, device="cpu", compute_type="int8", inter_threads=ongoing, intra_threads=max(1, threads // ongoing)
        )
        self._generator.generate_batch([["hello"]], max_length=1)

    async def __call__(self, request: Request) -> Response:
        if request.method == "GET":
            return JSONResponse(REPLY)
        wish = await request.json()
        return StreamingResponse(self._stream(wish["prompt"], wish["max_tokens"]), media_type="text/event-stream")

    async def _stream(self, prompt: str, max_tokens: int) -> AsyncIterator[str]:
        tokens = self._tokenizer.encode(prompt).tokens
        steps = self._generator.async_generate_tokens(tokens, max_length=max_tokens, sampling_topk=1, end_token=[])
        async for step in steps:
            yield _event(self._tokenizer.decode([step.token_id]))
        yield "data: [DONE]\n\n"


class Applications:
    """What the control server can ask for."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options

    def deploy(self, name: str) -> dict[str, Any]:
        options = self._options
        settings: dict[str, Any] = {"max_ongoing_requests": options.ongoing, "ray_actor_options": {"num_cpus": 0}}
        if options.max_replicas > 1:
            settings["autoscaling_config"] = _autoscaling(options)
        bound: Any
        if options.app == "noop":
            bound = serve.deployment(Noop).options(**settings).bind()
        elif options.app == "pause":
            bound = serve.deployment(Pause).options(**settings).bind(options.pause_s)
        else:
            made = serve.deployment(Generate).options(**settings)
            bound = made.bind(options.artifact, options.model, options.threads, options.ongoing)
        serve.run(bound, name=name, route_prefix=f"/{name}", _local_testing_mode=False)
        return {"name": name}

    def delete(self, name: str) -> dict[str, Any]:
        serve.delete(name)
        return {}

    def replicas(self, name: str) -> dict[str, Any]:
        """How many replicas there are, whatever their state."""
        application = serve.status().applications.get(name)
        deployments = application.deployments.values() if application else ()
        return {"replicas": sum(sum(one.replica_states.values()) for one in deployments)}


def _autoscaling(options: argparse.Namespace) -> dict[str, Any]:
    scaling: dict[str, Any] = {
        "min_replicas": 1,
        "max_replicas": options.max_replicas,
        "target_ongoing_requests": options.ongoing,
        "upscale_delay_s": options.upscale_s,
        "downscale_delay_s": options.downscale_s,
    }
    if options.metrics_s:
        scaling |= {"metrics_interval_s": options.metrics_s, "look_back_period_s": options.look_back_s}
    return scaling


class Control(BaseHTTPRequestHandler):
    """`POST /deploy/NAME`, `DELETE /NAME`, `GET /replicas/NAME`."""

    applications: Applications

    def do_POST(self) -> None:
        self._tell(self.applications.deploy(self.path.rpartition("/")[2]))

    def do_DELETE(self) -> None:
        self._tell(self.applications.delete(self.path.rpartition("/")[2]))

    def do_GET(self) -> None:
        self._tell(self.applications.replicas(self.path.rpartition("/")[2]))

    def log_message(self, format: str, *args: Any) -> None: ...

    def _tell(self, told: dict[str, Any]) -> None:
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _event(text: str) -> str:
    choice = {"index": 0, "text": text, "pid": os.getpid(), "finish_reason": None}
    return f"data: {json.dumps({'id': 'cmpl-0', 'choices': [choice]})}\n\n"


def main() -> None:
    options = _options()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    ray.init(_temp_dir=options.temp_dir, log_to_driver=False)
    signal.signal(signal.SIGTERM, lambda *_: ended.set())  # Ray has put its own there
    serve.start(http_options={"host": "127.0.0.1", "port": options.port})
    applications = Applications(options)
    for number in range(options.deployed):
        applications.deploy(f"app{number}" if number else "app")
    Control.applications = applications
    control = ThreadingHTTPServer(("127.0.0.1", options.control_port), Control)
    threading.Thread(target=control.serve_forever, daemon=True).start()
    print(f"serves after {time.process_time():.1f} s of CPU", flush=True)
    ended.wait()
    serve.shutdown()
    ray.shutdown()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--control-port", type=int, required=True)
    parser.add_argument("--temp-dir", required=True)
    parser.add_argument("--app", choices=("noop", "pause", "generate"), default="noop")
    parser.add_argument("--deployed", type=int, default=1, help="applications to deploy at once: app, app1 …")
    parser.add_argument("--ongoing", type=int, default=64, help="requests at once per replica, and the scaler's target")
    parser.add_argument("--max-replicas", type=int, default=1)
    parser.add_argument("--upscale-s", type=float, default=0.03)
    parser.add_argument("--downscale-s", type=float, default=0.6)
    parser.add_argument("--metrics-s", type=float, default=0.0, help="0 keeps Ray's default metric windows")
    parser.add_argument("--look-back-s", type=float, default=0.2)
    parser.add_argument("--pause-s", type=float, default=0.2)
    parser.add_argument("--artifact", default="")
    parser.add_argument("--model", default="")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
