"""The engines' own libraries without a server: the same artifact, prompts, lengths and threads in a process of its own.

The parent's side is `OfflineEngine`; the process, which is this module run, reads a batch's size and length from its
standard input, generates, and prints the seconds. It is idle in between, so it can stay loaded beside other subjects.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from bench.generation import PROMPTS
from bench.outcome import ROOT
from bench.processes import BenchFailed, Usage, usage
from bench.vllm_python import vllm_python

from dockyard.engine_environments import EngineEnvironments
from dockyard.fleets.local.spawn import environment

_VLLM = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # as the replica's
    "VLLM_LOGGING_LEVEL": "ERROR",
}
_VLLM_ROWS = 10
# As a replica's for SmolLM2: 10 rows of 1,024 tokens, each of 30 layers × keys and values × 3 heads × 64 × 4 bytes.
_VLLM_CACHE_BYTES = _VLLM_ROWS * 1024 * 30 * 2 * 3 * 64 * 4
# prompts, tokens of each → the tokens that each prompt got
Generate = Callable[[Sequence[Sequence[int]], int], list[int]]


@dataclass
class OfflineEngine:
    """`with OfflineEngine("ctranslate2", artifact, tokenizer_folder, threads) as engine:` has it loaded and warm."""

    engine: str
    artifact: Path
    folder: Path  # of the tokenizer
    threads: int
    _process: "subprocess.Popen[str] | None" = None
    _scratch: Path | None = None

    def __enter__(self) -> Self:
        self._scratch = Path(tempfile.mkdtemp(prefix="dockyard-bench-"))
        python, extra = _python(self.engine, self._scratch)
        options = ("--engine", self.engine, "--artifact", str(self.artifact), "--folder", str(self.folder))
        try:
            self._process = subprocess.Popen(
                [str(python), "-m", "bench.peers.offline", *options, "--threads", str(self.threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                # A replica's: threads, and how long they spin. But this module is imported from the current folder.
                env={**environment(self.threads, os.environ), **extra, "PYTHONSAFEPATH": ""},
                cwd=ROOT,
            )
            self.tokens_per_s(batch=1, tokens=2, batches=1)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def tokens_per_s(self, *, batch: int, tokens: int, batches: int) -> float:
        """Of `batches` batches one after the other, each of `batch` prompts and `tokens` new tokens for each prompt."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise BenchFailed("the offline engine does not run")
        process.stdin.write(json.dumps({"batch": batch, "tokens": tokens, "batches": batches}) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise BenchFailed(f"{self.engine} offline ended with {process.wait()}")
        told = json.loads(line)
        if set(told["counts"]) != {tokens}:
            raise BenchFailed(f"{self.engine} offline made {sorted(set(told['counts']))} tokens, not {tokens}")
        return sum(told["counts"]) / told["seconds"]

    def usage(self) -> Usage:
        if self._process is None:
            raise BenchFailed("the offline engine does not run")
        return usage([psutil.Process(self._process.pid)])

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)


def _python(engine: str, scratch: Path) -> tuple[Path, Mapping[str, str]]:
    """The interpreter that has the engine, and what its process needs in its environment."""
    if engine != "vllm":
        return Path(sys.executable), {}
    found = EngineEnvironments(scratch, {engine: vllm_python()}).command_of(engine)
    assert found is not None
    return found[0], {**found[1], **_VLLM, "TMPDIR": str(scratch)}


def main() -> None:
    options = _arguments()
    # Libraries write to standard output as they like; the answers go where it led.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    generate = _LOADERS[options.engine](options)
    prompts = _prompts(options.folder)
    for line in sys.stdin:
        wanted = json.loads(line)
        counts: list[int] = []
        next_prompt = 0
        began = time.monotonic()
        for _ in range(wanted["batches"]):
            chosen = [prompts[(next_prompt + row) % len(prompts)] for row in range(wanted["batch"])]
            next_prompt += wanted["batch"]
            counts += generate(chosen, wanted["tokens"])
        print(json.dumps({"seconds": time.monotonic() - began, "counts": counts}), file=answers, flush=True)


def _prompts(folder: Path) -> list[list[int]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [tokenizer.encode(prompt).ids for prompt in PROMPTS]


def _ctranslate2(options: argparse.Namespace) -> Generate:
    import ctranslate2

    generator = ctranslate2.Generator(
        str(options.artifact), device="cpu", compute_type="int8_float32", inter_threads=1, intra_threads=options.threads
    )
    vocabulary: list[str] = json.loads((options.artifact / "vocabulary.json").read_text())

    def generate(prompts: Sequence[Sequence[int]], tokens: int) -> list[int]:
        results: list[Any] = generator.generate_batch(
            [[vocabulary[token] for token in prompt] for prompt in prompts],
            include_prompt_in_result=False,
            max_length=tokens,
            beam_size=1,
            sampling_topk=1,
        )
        return [len(result.sequences_ids[0]) for result in results]

    return generate


def _transformers(options: argparse.Namespace) -> Generate:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    torch.set_num_threads(options.threads)
    disable_progress_bar()
    model: Any = AutoModelForCausalLM.from_pretrained(str(options.artifact), dtype=torch.float32, local_files_only=True)
    model.eval()

    def generate(prompts: Sequence[Sequence[int]], tokens: int) -> list[int]:
        width = max(len(prompt) for prompt in prompts)
        ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with torch.inference_mode():
            made = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=tokens,
                do_sample=False,
                pad_token_id=0,
            )
        return [made.shape[1] - width] * len(prompts)

    return generate


def _vllm(options: argparse.Namespace) -> Generate:
    """With the replica's options, but all in this process."""
    vllm = import_module("vllm")
    engine: Any = vllm.LLM(
        model=str(options.artifact),
        skip_tokenizer_init=True,
        dtype="float32",
        max_model_len=8192,
        max_num_seqs=_VLLM_ROWS,
        enforce_eager=True,
        enable_prefix_caching=True,
        kv_cache_memory_bytes=_VLLM_CACHE_BYTES,
        distributed_executor_backend="uni",
        generation_config="vllm",
    )

    def generate(prompts: Sequence[Sequence[int]], tokens: int) -> list[int]:
        made = engine.generate(
            [vllm.TokensPrompt(prompt_token_ids=list(prompt)) for prompt in prompts],
            vllm.SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False),
            use_tqdm=False,
        )
        return [len(output.outputs[0].token_ids) for output in made]

    return generate


_LOADERS = {"ctranslate2": _ctranslate2, "transformers": _transformers, "vllm": _vllm}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=tuple(_LOADERS), required=True)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
