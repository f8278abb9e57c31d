"""`transformers serve` on the CPU as a peer, in an environment of its own (bench/peers/transformers_serve.txt)."""

from pathlib import Path

from bench.generation import Endpoint
from bench.peers.http_server import PeerServer, environment_python

START_TIMEOUT_S = 180


class TransformersServer(PeerServer):
    """`with TransformersServer(folder) as server:` waits until it serves. `continuous`: its batching across requests.

    Without that, and so by default, it runs one request after the other.
    """

    def __init__(self, folder: Path, *, continuous: bool, dtype: str = "float32") -> None:
        python = environment_python("transformers_serve")
        self._folder = folder
        batching = "--continuous-batching" if continuous else "--no-continuous-batching"
        super().__init__(
            name="transformers serve",
            distribution="transformers",
            python=python,
            command=[
                *(str(python.with_name("transformers")), "serve", str(folder), "--device", "cpu", "--dtype", dtype),
                *(batching, "--host", "127.0.0.1", "--log-level", "warning"),
            ],
            environment={},
            ready_path="/health",
            start_timeout_s=START_TIMEOUT_S,
        )

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.url, str(self._folder))
