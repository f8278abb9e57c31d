"""What the peers that serve models over HTTP share: an environment of their own, a start, a wait, an end by id."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from bench.outcome import ROOT
from bench.processes import BenchFailed, Usage, end, end_all, free_port, start, started_by, tail, tree, usage


def environment_python(name: str) -> Path:
    """The Python of the peer's environment. Raises `BenchFailed` where it was not made."""
    environments = Path(os.environ.get("DOCKYARD_BENCH_ENVS") or ROOT / ".cache" / "bench")
    python = environments / name / "bin" / "python"
    if not python.exists():
        raise BenchFailed(f"no environment: bench/peers/make {name} makes it")
    return python


class PeerServer:
    """A server started by `with`; `url` has no path. Its children end with it."""

    def __init__(
        self,
        *,
        name: str,
        distribution: str,
        python: Path,
        command: Sequence[str],
        environment: Mapping[str, str],
        start_timeout_s: float,
        ready_path: str = "/v1/models",
        poll_s: float = 0.2,
    ) -> None:
        self.name = name
        self.folder = Path(tempfile.mkdtemp(prefix="dockyard-bench-"))
        self.log = self.folder / "peer.log"
        self.marker = uuid.uuid4().hex
        self._distribution = distribution
        self._python = python
        self._command = command
        self._environment = environment
        self.started_in_s = 0.0  # from its start to the first good reply, to within `poll_s`
        self._start_timeout_s = start_timeout_s
        self._ready_path = ready_path
        self._poll_s = poll_s
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def version(self) -> str:
        program = f"from importlib.metadata import version; print(version({self._distribution!r}))"
        ran = subprocess.run([str(self._python), "-c", program], stdout=subprocess.PIPE, text=True, check=True)
        return ran.stdout.strip()

    def __enter__(self) -> Self:
        offline = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "TOKENIZERS_PARALLELISM": "false"}
        own = {**os.environ, **offline, "BENCH_SUBJECT": self.marker, **self._environment}
        command = [*self._command, "--port", str(self._port)]
        began = time.monotonic()
        try:
            self._process = start(command, self.log, environment=own, cwd=self.folder)
            self._wait(self._process)
            self.started_in_s = time.monotonic() - began
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def usage(self) -> Usage:
        """Of all its processes, those included that have written over their environment, as vLLM's do."""
        below = tree(self._process.pid) if self._process else []
        return usage([*below, *started_by(self.marker)])

    def close(self) -> None:
        if self._process is not None:
            end(self._process, started_by(self.marker))
            self._process = None
        end_all(started_by(self.marker))
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait(self, process: "subprocess.Popen[bytes]") -> None:
        """Ask now and then: a start takes up to minutes, and few measure it."""
        deadline = time.monotonic() + self._start_timeout_s
        with httpx.Client(base_url=self.url, timeout=5, trust_env=False) as client:
            while process.poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(httpx.TransportError):
                    if client.get(self._ready_path).is_success:
                        return
                time.sleep(self._poll_s)
        how = "takes too long to start" if process.poll() is None else f"ended with {process.returncode}"
        raise BenchFailed(f"{self.name} {how}:\n{tail(self.log)}")
