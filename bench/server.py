"""A `dockyard serve` of this environment, with a port and a data directory of its own, and what a benchmark asks of it.

with DockyardServer() as server:
    model_id = server.import_model(echo_model(server.folder / "echo"))
    job = server.deploy(model_id, "echo", minReplicas=1, maxReplicas=4, maxBatchSize=64)
    run_load(Plan(f"{server.url}/v1/completions", [body], headers=server.inference_headers(), seconds=5))
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil

from bench.outcome import ROOT
from bench.processes import BenchFailed, Usage, end, end_all, start, started_by, tail, tree, usage, wait_until

Json = dict[str, Any]

ECHO_CONFIG: Json = {
    "architectures": ["EchoForCausalLM"],
    "model_type": "echo",
    "vocab_size": 257,
    "eos_token_id": 256,
    "max_position_embeddings": 4096,
    "num_hidden_layers": 0,
    "hidden_size": 0,
}
SCALING: Json = {"maxBatchSize": 10, "minReplicas": 1, "maxReplicas": 1, "scaleUpDelay": 30, "scaleDownDelay": 600}
SAMPLING: Json = {"temperature": 0, "maxTokens": 512, "topP": 1, "topK": 50, "stopSequence": []}
INT8: Json = {"optimizationType": "ctranslate2", "quantizationType": "int8_float16"}
PLAIN: Json = {"optimizationType": "", "quantizationType": ""}
VLLM: Json = {"optimizationType": "vllm", "quantizationType": ""}


class DockyardServer:
    """Started by `with`, or by `start()`; `stop()` is SIGTERM, `kill()` is SIGKILL. The folder goes at the end."""

    def __init__(self, data_dir: Path | None = None, port: int = 0, **environment: str) -> None:
        """`data_dir` is kept when it is given; `environment` holds DOCKYARD_* settings."""
        self.folder = Path(tempfile.mkdtemp(prefix="dockyard-bench-"))
        self.data_dir = data_dir or self.folder / "data"
        self.log = self.folder / "server.log"
        self.marker = uuid.uuid4().hex
        self.started_in_s = 0.0  # from the call to the first 200 of /readyz
        self.served_in_s: float | None = None  # from the call to the first answer that `start` was told to ask for
        self.url = ""
        self.key = ""
        self._port = port
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx.Client(timeout=120, trust_env=False)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise BenchFailed("the server does not run")
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    def start(self, ask: Json | None = None) -> None:
        """Start and wait until it is ready. Once more after `stop` or `kill`, with the same data and port.

        `ask`: a completion to ask for from the first moment on that somebody listens.
        """
        own = {name: value for name, value in os.environ.items() if not name.startswith("DOCKYARD_")}
        own |= {"DOCKYARD_LOG_FORMAT": "json", "BENCH_SUBJECT": self.marker, **self._environment}
        if self._client.is_closed:
            self._client = httpx.Client(timeout=120, trust_env=False)
        known = self.log.stat().st_size if self.log.exists() else 0
        command = [str(Path(sys.executable).with_name("dockyard")), "serve"]
        began = time.monotonic()
        self._process = start(
            [*command, "--port", str(self._port), "--data-dir", str(self.data_dir)], self.log, environment=own
        )
        if ask is not None:
            wait_until(self._listens, self._process, self.log)
            self.call("POST", "/v1/completions", ask)
            self.served_in_s = time.monotonic() - began
        wait_until(lambda: self._ready(known), self._process, self.log)
        self.started_in_s = time.monotonic() - began
        self.key = self._environment.get("DOCKYARD_ADMIN_KEY") or (self.data_dir / "admin-key").read_text().strip()
        self._client.headers["x-api-key"] = self.key

    def stop(self) -> int:
        """SIGTERM: drain, end. Returns the exit code."""
        return end(self.process, self._below()) if self._process else 0

    def kill(self) -> None:
        """SIGKILL to the server alone: its replicas go on."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        """Stop it, end what is left of it, remove its folder. Idempotent."""
        self._client.close()
        if self._process is not None:
            self.stop()
            self._process = None
        end_all(started_by(self.marker))
        shutil.rmtree(self.folder, ignore_errors=True)

    def usage(self) -> Usage:
        """CPU time and memory of the server, its replicas and whatever else it runs."""
        return usage([*tree(self.pid), *self._below()])

    def server_usage(self) -> Usage:
        """Of the server process alone."""
        return usage([psutil.Process(self.pid)])

    # Its API

    def call(self, method: str, path: str, body: Json | None = None) -> Json:
        """A call of /api/public, or of the whole path where it starts with /v1, /v2, /readyz or /healthz."""
        whole = path.startswith(("/v1", "/v2", "/readyz", "/healthz"))
        reply = self._client.request(method, f"{self.url}{'' if whole else '/api/public'}{path}", json=body)
        if not reply.is_success:
            raise BenchFailed(f"{method} {path}: {reply.status_code} {reply.text[:500]}")
        return reply.json()

    def import_model(self, path: Path, name: str = "", model_type: str = "openSource") -> str:
        """Import a folder or GGUF file of this machine and wait for it; returns the model's id."""
        wish = {"name": name or path.stem, "modelType": model_type, "source": {"path": str(path.resolve())}}
        reply = self.call("POST", "/models", wish)
        self.wait_job(reply["dockStatusId"])
        return reply["modelId"]

    def begin_deploy(self, model_id: str, name: str, optimization: Json = PLAIN, **parameters: Any) -> str:
        """POST deploy; returns the job's id at once. `parameters` are scaling or hyper parameters by their names."""
        body = {
            "name": name,
            "hyperParameters": {key: parameters.pop(key, value) for key, value in SAMPLING.items()},
            "scalingParameters": {key: parameters.pop(key, value) for key, value in SCALING.items()},
            "deviceType": parameters.pop("deviceType", "g5.xlarge"),
            "optimizationInfo": optimization,
        }
        if parameters:
            raise TypeError(f"no such parameters: {', '.join(parameters)}")
        return self.call("POST", f"/models/{model_id}/deploy?modelType=openSource", body)["dockStatusId"]

    def deploy(self, model_id: str, name: str, optimization: Json = PLAIN, **parameters: Any) -> Json:
        """`begin_deploy`, and wait for it; returns the dock status (`deploymentId`, `response` …)."""
        return self.wait_job(self.begin_deploy(model_id, name, optimization, **parameters))

    def undeploy(self, model_id: str, name: str) -> Json:
        return self.wait_job(self.call("POST", f"/models/{model_id}/undeploy?name={name}")["dockStatusId"])

    def wait_job(self, job_id: str, timeout_s: float = 300, interval_s: float = 0.01) -> Json:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            job = self.call("GET", f"/dock-status/{job_id}")
            if job["status"] == "SUCCESS":
                return job
            if job["status"] == "FAILED":
                raise BenchFailed(f"{job['action']} failed: {job['reason']}: {job['message']}\n{job.get('logTail')}")
            time.sleep(interval_s)
        raise BenchFailed(f"job {job_id} takes longer than {timeout_s:.0f} s:\n{tail(self.log)}")

    def replicas(self, deployment_id: str) -> list[Json]:
        """The living ones."""
        return self.call("GET", f"/deployments/{deployment_id}/replicas")["replicas"]

    def events(self, deployment_id: str) -> list[Json]:
        return self.call("GET", f"/deployments/{deployment_id}/events?limit=200")["events"]

    def start_s(self, deployment_id: str) -> float:
        """Of a deployment's only replica: from the decision, when its version's artifact was there, to ready."""
        (replica,) = self.replicas(deployment_id)
        decided = max(event["at"] for event in self.events(deployment_id) if event["to"] == "Deploying")
        return (datetime.fromisoformat(replica["readyOn"]) - datetime.fromisoformat(decided)).total_seconds()

    def inference_headers(self) -> dict[str, str]:
        return {"x-api-key": self.key, "content-type": "application/json"}

    def _ready(self, known: int) -> bool:
        if not self.log.exists():
            return False
        for line in self.log.read_bytes()[known:].splitlines():
            if b'"dockyard serves"' in line:
                with contextlib.suppress(json.JSONDecodeError):
                    told = json.loads(line)
                    self.url = f"http://127.0.0.1:{told['port']}"
                    self._port = told["port"]
        with contextlib.suppress(httpx.TransportError):
            return bool(self.url) and self._client.get(f"{self.url}/readyz").is_success
        return False

    def _listens(self) -> bool:
        """A request that comes too early for an answer waits for it; only a connection may be refused."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port)):
            return True
        return False

    def _below(self) -> list[psutil.Process]:
        return started_by(self.marker)


def echo_model(folder: Path, step_ms: float | None = None) -> Path:
    """A model folder for the echo engine; with `step_ms` it makes a token (a byte) each so many milliseconds."""
    folder.mkdir(parents=True, exist_ok=True)
    config = ECHO_CONFIG if step_ms is None else {**ECHO_CONFIG, "step_ms": step_ms}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def smollm2() -> Path:
    """SmolLM2-135M-Instruct as GGUF; fetched into .cache when it is not there. Raises `BenchFailed`."""
    script = ROOT / "scripts" / "fetch_smollm2.py"
    ran = subprocess.run([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, check=False)
    if ran.returncode != 0:
        raise BenchFailed("SmolLM2 cannot be had; scripts/fetch_smollm2.py says why")
    return Path(ran.stdout.strip())


@contextlib.contextmanager
def prepared_data(models: dict[str, Path], optimizations: list[Json]) -> Iterator[tuple[Path, dict[str, str]]]:
    """A data directory whose models are imported and converted already, to copy or reuse; and the models' ids."""
    with tempfile.TemporaryDirectory(prefix="dockyard-bench-") as folder:
        data = Path(folder) / "data"
        with DockyardServer(data) as server:
            ids = {name: server.import_model(path, name) for name, path in models.items()}
            for name, model_id in ids.items():
                for number, optimization in enumerate(optimizations):
                    server.deploy(model_id, f"{name} {number}", optimization)
                    server.undeploy(model_id, f"{name} {number}")
        yield data, ids
