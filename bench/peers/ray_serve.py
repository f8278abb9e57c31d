"""Ray Serve as a peer, with one of the applications of `ray_serve_app.py`, in an environment of its own."""

import dataclasses
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from bench.peers.http_server import PeerServer, environment_python
from bench.processes import free_port

START_TIMEOUT_S = 240
SCRIPT = Path(__file__).with_name("ray_serve_app.py")


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """The application's options, as `ray_serve_app.py` has them."""

    app: str = "noop"
    deployed: int = 1
    ongoing: int = 64
    max_replicas: int = 1
    upscale_s: float = 0.03
    downscale_s: float = 0.6
    metrics_s: float = 0.0  # 0: Ray's default metric windows
    look_back_s: float = 0.2
    pause_s: float = 0.2
    artifact: str = ""
    model: str = ""
    threads: int = 1


class RayServe(PeerServer):
    """`haproxy`: HAProxy in front of the replicas, and all that Ray sums up as optimized for throughput."""

    def __init__(self, options: RayOptions, *, name: str = "ray serve", haproxy: bool = False) -> None:
        python = environment_python("ray_serve")
        self._control_port = free_port()
        words = [f"--{key.replace('_', '-')}={value}" for key, value in dataclasses.asdict(options).items()]
        super().__init__(
            name=name,
            distribution="ray",
            python=python,
            command=[str(python), str(SCRIPT), f"--control-port={self._control_port}", *words],
            environment={},
            start_timeout_s=START_TIMEOUT_S,
            # last of all the script opens its control port: by then what it was to deploy is there
            ready_path=f"http://127.0.0.1:{self._control_port}/replicas/app",
            poll_s=0.01,
        )
        self._command = [*self._command, f"--temp-dir={self.folder}"]
        self._sockets = Path(tempfile.mkdtemp(prefix="db-"))  # Ray adds 56 characters, a socket's path may have 97
        self._environment = _settings(self._sockets, options, haproxy)
        self._control = httpx.Client(base_url=f"http://127.0.0.1:{self._control_port}", timeout=240, trust_env=False)

    def deploy(self, name: str) -> None:
        """Returns when Ray says that it runs; it may serve before."""
        self._control.post(f"/deploy/{name}").raise_for_status()

    def delete(self, name: str) -> None:
        self._control.delete(f"/{name}").raise_for_status()

    def replicas(self, name: str) -> int:
        """How many replicas of the application are there, whatever their state."""
        return self._control.get(f"/replicas/{name}").raise_for_status().json()["replicas"]

    def close(self) -> None:
        self._control.close()
        super().close()
        shutil.rmtree(self._sockets, ignore_errors=True)


def _settings(folder: Path, options: RayOptions, haproxy: bool) -> Mapping[str, str]:
    settings: dict[str, Any] = {"RAY_USAGE_STATS_ENABLED": 0, "RAY_AUTH_MODE": "disabled"}
    if options.metrics_s:
        settings["RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S"] = options.metrics_s
        settings["RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S"] = options.metrics_s
    if haproxy:
        settings |= {
            "RAY_SERVE_ENABLE_HA_PROXY": 1,
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": 1,
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": folder / "haproxy.cfg",
            "RAY_SERVE_HAPROXY_SOCKET_PATH": folder / "admin.sock",
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": folder / "server-state",
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": folder / "metrics.sock",
            "RAY_SERVE_HAPROXY_METRICS_PORT": free_port(),
            "RAY_SERVE_HAPROXY_STATS_PORT": free_port(),
        }
    return {name: str(value) for name, value in settings.items()}
