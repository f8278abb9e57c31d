"""Peers whose application only answers: LitServe, BentoML, a bare proxy before one of our replicas, a bare relay."""

import sys
from pathlib import Path

from bench.outcome import ROOT
from bench.peers.http_server import PeerServer, environment_python

START_TIMEOUT_S = 120
HERE = Path(__file__).parent


class LitServe(PeerServer):
    """POST /predict."""

    def __init__(self) -> None:
        python = environment_python("litserve")
        super().__init__(
            name="litserve",
            distribution="litserve",
            python=python,
            command=[str(python), str(HERE / "litserve_app.py")],
            environment={},
            start_timeout_s=START_TIMEOUT_S,
            ready_path="/health",
        )


class BentoML(PeerServer):
    """POST /predict."""

    def __init__(self) -> None:
        python = environment_python("bentoml")
        super().__init__(
            name="bentoml",
            distribution="bentoml",
            python=python,
            command=[
                *(str(python), "-m", "bentoml", "serve", "bentoml_app:Noop", "--working-dir", str(HERE)),
                *("--host", "127.0.0.1"),
            ],
            environment={"BENTOML_DO_NOT_TRACK": "True"},
            start_timeout_s=START_TIMEOUT_S,
            ready_path="/readyz",
        )
        self._environment = {**self._environment, "BENTOML_HOME": str(self.folder)}


class AiohttpProxy(PeerServer):
    """POST /, in Dockyard's own environment: the same libraries."""

    def __init__(self) -> None:
        python = Path(sys.executable)
        super().__init__(
            name="bare proxy",
            distribution="aiohttp",
            python=python,
            command=[str(python), "-m", "bench.peers.aiohttp_proxy"],
            environment={"PYTHONPATH": str(ROOT)},
            start_timeout_s=START_TIMEOUT_S,
            ready_path="/readyz",
        )


class BareRelay(PeerServer):
    """Any request; nothing but Python's sockets."""

    def __init__(self) -> None:
        python = Path(sys.executable)
        super().__init__(
            name="bare relay",
            distribution="dockyard",
            python=python,
            command=[str(python), "-m", "bench.peers.bare_relay"],
            environment={"PYTHONPATH": str(ROOT)},
            start_timeout_s=START_TIMEOUT_S,
            ready_path="/",
        )
