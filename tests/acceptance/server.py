"""A real `dockyard serve` in a process of its own, and a small client of its API, for the acceptance tests."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

DOCKYARD = str(Path(sys.executable).with_name("dockyard"))
MODELS = Path(__file__).parents[1] / "models"
SAMPLE: dict[str, Any] = {  # the body of the published sample requests
    "name": "Flant5_model",
    "hyperParameters": {"temperature": 1, "maxTokens": 512, "topP": 1, "topK": 50, "stopSequence": []},
    "scalingParameters": {
        "maxBatchSize": 10,
        "minReplicas": 1,
        "maxReplicas": 2,
        "scaleUpDelay": 30,
        "scaleDownDelay": 600,
    },
    "deviceType": "g5.xlarge",
    "optimizationInfo": {"optimizationType": "", "quantizationType": ""},
    "isDeployedPreviously": True,
}


def body(name: str, optimization: str = "", quantization: str = "", **scaling: int) -> dict[str, Any]:
    """The published sample with another name, engine, quantization or scaling."""
    return {
        **SAMPLE,
        "name": name,
        "scalingParameters": {**SAMPLE["scalingParameters"], **scaling},
        "optimizationInfo": {"optimizationType": optimization, "quantizationType": quantization},
    }


def client(**options: Any) -> httpx.Client:
    """A client that does not read the certificates of the world first: that would take 70 ms."""
    return httpx.Client(verify=False, timeout=60, **options)


class Server:
    """`with Server(data_dir) as server:` starts it; `kill()` is kill -9, `stop()` is SIGTERM, `start()` starts anew."""

    def __init__(self, data_dir: Path, **environment: str) -> None:
        self.data_dir = data_dir
        self._environment = environment
        self._process: subprocess.Popen[str] | None = None
        self._log: list[str] = []
        self._reader: threading.Thread | None = None
        self._client = client()
        self.url = ""
        self.key = ""

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.end_leftovers()
        self._client.close()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return "".join(self._log)

    def start(self) -> None:
        """Start and wait for the line that tells the address."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("DOCKYARD_")}
        self._process = subprocess.Popen(
            [DOCKYARD, "serve", "--port", "0", "--data-dir", str(self.data_dir)],
            env={**environment, "DOCKYARD_LOG_FORMAT": "json", **self._environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._log.append(line)
            with contextlib.suppress(json.JSONDecodeError):
                told = json.loads(line)
                if told.get("event") == "dockyard serves":
                    self.url = told["url"]
                    break
        else:
            raise AssertionError(f"the server did not start:\n{self.log}")
        self._reader = threading.Thread(target=self._log.extend, args=(self._process.stderr,), daemon=True)
        self._reader.start()
        self.key = self._environment.get("DOCKYARD_ADMIN_KEY") or (self.data_dir / "admin-key").read_text().strip()

    def kill(self) -> None:
        """`kill -9`: the server has no chance to tidy up."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM: drain and end. Returns the exit code."""
        return self._end(signal.SIGTERM)

    def send(self, number: signal.Signals) -> None:
        """Send a signal and do not wait for what comes of it."""
        assert self._process is not None
        self._process.send_signal(number)

    def ended(self) -> int:
        """Wait for the end of a server that was told to. Returns the exit code."""
        assert self._process is not None
        process, self._process = self._process, None
        code = process.wait(60)
        if self._reader is not None:
            self._reader.join()
        assert process.stderr is not None
        process.stderr.close()
        return code

    def _end(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        self.send(number)
        return self.ended()

    def workers(self) -> list[psutil.Process]:
        """The processes of this data directory besides the server: replicas and preparations, not warm spares."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                command = process.cmdline()
                kind = any(word in ("dockyard.worker", "dockyard.prepare") for word in command)
                ours = any(word.startswith(str(self.data_dir)) for word in command)
                spare = any(word.startswith("spare.") for word in command)
                if kind and ours and not spare and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def kill_replica(self, pid: int) -> None:
        """`kill -9` of one of this server's replicas."""
        (replica,) = (process for process in self.workers() if process.pid == pid)
        replica.kill()

    def end_leftovers(self) -> None:
        for process in self.workers():
            with contextlib.suppress(psutil.Error):
                process.kill()

    # The API

    @property
    def headers(self) -> dict[str, str]:
        return {"x-api-key": self.key}

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        operations = ("/v1", "/v2", "/healthz", "/readyz", "/metrics")
        base = self.url if path.startswith(operations) else f"{self.url}/api/public"
        return self._client.request(method, base + path, headers=self.headers, **options)

    def get(self, path: str) -> Any:
        reply = self.call("GET", path)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def post(self, path: str, json: Any = None) -> Any:
        reply = self.call("POST", path, json=json)
        assert reply.status_code in (200, 201), reply.text
        return reply.json()

    def watch(self, job_id: str, timeout_s: float = 120) -> Iterator[dict[str, Any]]:
        """Each distinct state of a job, the last one ended."""
        deadline = time.monotonic() + timeout_s
        last: Any = None
        while time.monotonic() < deadline:
            status = self.get(f"/dock-status/{job_id}")
            if status != last:
                yield status
            if status["status"] != "IN_PROGRESS":
                return
            last = status
            time.sleep(0.01)  # a client that polls; nothing depends on the interval
        raise AssertionError(f"still in progress: {last}\n{self.log[-1500:]}")

    def metric(self, name: str, deployment: str) -> int:
        lines = self.call("GET", "/metrics").text.splitlines()
        told = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return int(float(told[f'{name}{{deployment="{deployment}"}}']))

    def load(self, deployment: str) -> tuple[int, int]:
        """How many requests for it wait and how many run now."""
        kinds = ("queued", "in_flight")
        waiting, running = (self.metric(f"dockyard_requests_{kind}", deployment) for kind in kinds)
        return waiting, running

    def replicas(self, deployment_id: str) -> list[dict[str, Any]]:
        return self.get(f"/deployments/{deployment_id}/replicas")["replicas"]

    def versions(self, deployment_id: str) -> dict[int, dict[str, Any]]:
        listed = self.get(f"/deployments/{deployment_id}/versions")["versions"]
        return {version["version"]: version for version in listed}

    def until(self, happened: Callable[[], bool], timeout_s: float = 60) -> None:
        """Look until it has happened."""
        deadline = time.monotonic() + timeout_s
        while not happened():
            assert time.monotonic() < deadline, f"it never happened\n{self.log[-1500:]}"
            time.sleep(0.01)  # a client that polls; nothing depends on the interval

    def wait(self, job_id: str, expect: str = "SUCCESS", timeout_s: float = 120) -> dict[str, Any]:
        """The job at its end, which must be `expect`."""
        *_, status = self.watch(job_id, timeout_s)
        assert status["status"] == expect, f"{status}\n{self.log[-1500:]}"
        return status

    def import_model(self, name: str, model_type: str = "openSource") -> str:
        """Import one of the test models; returns its id."""
        wish = {"name": name, "modelType": model_type, "source": {"path": str(MODELS / name)}}
        accepted = self.post("/models", wish)
        self.wait(accepted["dockStatusId"])
        return accepted["modelId"]

    def import_echo(self, folder: Path, *, name: str = "echo", **config: Any) -> str:
        """Import an echo model with keys of its own in its `config.json`, made in `folder`; returns its id."""
        known = json.loads((MODELS / "echo" / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**known, "_name": name, **config}))
        wish = {"name": name, "modelType": "openSource", "source": {"path": str(folder)}}
        accepted = self.post("/models", wish)
        self.wait(accepted["dockStatusId"])
        return accepted["modelId"]

    def deploy(self, model_id: str, wish: dict[str, Any], model_type: str = "openSource") -> dict[str, Any]:
        """Deploy and wait for success; returns the dock status."""
        return self.wait(self.begin_deploy(model_id, wish, model_type))

    def begin_deploy(self, model_id: str, wish: dict[str, Any], model_type: str = "openSource") -> str:
        """Deploy and return the job's id at once."""
        return self.post(f"/models/{model_id}/deploy?modelType={model_type}", wish)["dockStatusId"]

    def complete(self, model: str, prompt: str, **options: Any) -> str:
        reply = self.call("POST", "/v1/completions", json={"model": model, "prompt": prompt, **options})
        assert reply.status_code == 200, reply.text
        return reply.json()["choices"][0]["text"]
