"""What an import in chunks costs: the memory of the server and of the prepare process, and the rate.

    python -m bench.import_memory [--gib 5] [--rounds N] [--quick] [--json FILE]

A model of GPT-2's shape with random weights is packed into a tar while it is sent, four chunks of 16 MiB at a time, to
a server of its own; nothing of it lies on the disk but what the server writes, which is twice its size. The most memory
is what the kernel keeps (VmHWM): of the server over its whole life, beside what it had before the upload, and of the
process that unpacks.
"""

import contextlib
import hashlib
import json
import os
import tarfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench.outcome import DOCKYARD, ROOT, Outcome, parse_arguments, parser, recording
from bench.server import DockyardServer

CHUNK = 16 << 20
AT_ONCE = 4
WIDTH = 1600  # GPT-2 XL's
FILES = ROOT / "tests" / "models" / "gpt2-kjv"
SERVER_BEFORE, SERVER_PEAK = "server, before the upload", "server, most"
PREPARE_PEAK = "prepare process, most"
SENT, IMPORTED = "sent", "checked, unpacked, verified and stored"
_EVERY_S = 0.02


def main() -> None:
    words = parser(__doc__)
    words.add_argument("--gib", type=float, help="size of the model (default: 5, with --quick 0.25)")
    arguments = parse_arguments(words, rounds=1, quick_rounds=1)
    gib: float = arguments.options.gib or (0.25 if arguments.quick else 5.0)
    question = f"How much memory does the import of a model of {gib:g} GiB in chunks take, and how fast is it?"
    with recording(arguments, "import_memory", "Import in chunks", question) as outcome:
        for number in range(arguments.rounds):
            with DockyardServer() as server:
                import_once(outcome, number, server, RandomModel(gib))
        outcome.judge("the server grows by less than 64 MiB", "server, grown by", DOCKYARD, "<=", 64)
        outcome.judge("the prepare process takes less than 256 MiB", PREPARE_PEAK, DOCKYARD, "<=", 256)


def import_once(outcome: Outcome, number: int, server: DockyardServer, model: "RandomModel") -> None:
    before = most_memory(server.pid)
    with httpx.Client(base_url=f"{server.url}/api/public", headers={"x-api-key": server.key}, timeout=300) as client:
        began = time.monotonic()
        session_id, digest = send(client, model)
        sent_s = time.monotonic() - began
        with PrepareWatch(server.pid) as watch:
            began = time.monotonic()
            path = f"/files/session/{session_id}/complete"
            accepted = client.post(path, json={"fileSha256": digest}).raise_for_status().json()
            server.wait_job(accepted["dockStatusId"], timeout_s=1800, interval_s=0.1)
            imported_s = time.monotonic() - began
    after = most_memory(server.pid)
    outcome.add(number, SERVER_BEFORE, "MiB", DOCKYARD, before)
    outcome.add(number, SERVER_PEAK, "MiB", DOCKYARD, after)
    outcome.add(number, "server, grown by", "MiB", DOCKYARD, after - before)
    outcome.add(number, PREPARE_PEAK, "MiB", DOCKYARD, watch.most)
    outcome.add(number, SENT, "MiB/s", DOCKYARD, model.archive_bytes / sent_s / (1 << 20))
    outcome.add(number, IMPORTED, "MiB/s", DOCKYARD, model.archive_bytes / imported_s / (1 << 20))


def send(client: httpx.Client, model: "RandomModel") -> tuple[str, str]:
    """All chunks; returns the session's id and the archive's SHA-256."""
    wish = {
        "fileContext": "model",
        "totalChunks": -(-model.archive_bytes // CHUNK),
        "fileExtension": "tar",
        "fileName": "random.tar",
        "fileSize": model.archive_bytes,
    }
    session_id = client.post("/files/session/start", json=wish).raise_for_status().json()["sessionId"]
    whole, places = hashlib.sha256(), threading.Semaphore(AT_ONCE)

    def deliver(number: int, chunk: bytes) -> None:
        try:
            form = {"chunkNumber": str(number), "sha256": hashlib.sha256(chunk).hexdigest()}
            client.post(f"/files/session/{session_id}", files={"file": chunk}, data=form).raise_for_status()
        finally:
            places.release()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        sending = []
        for number, chunk in enumerate(model.chunks()):
            whole.update(chunk)
            places.acquire()
            sending.append(pool.submit(deliver, number, chunk))
        for one in sending:
            one.result()
    return session_id, whole.hexdigest()


class RandomModel:
    """GPT-2's tensors in 16 bits, as many layers as `gib` holds; the tokenizer of the tests' small GPT-2."""

    def __init__(self, gib: float) -> None:
        config: dict[str, Any] = json.loads((FILES / "config.json").read_text())
        layer_bytes = 2 * (12 * WIDTH * WIDTH + 13 * WIDTH)
        layers = max(1, round(gib * (1 << 30) / layer_bytes))
        config |= {"n_embd": WIDTH, "n_head": 25, "n_layer": layers, "dtype": "float16"}
        names = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
        self._small = {name: (FILES / name).read_bytes() for name in names if (FILES / name).exists()}
        self._small["config.json"] = json.dumps(config).encode()
        self._header, self._weights_bytes = _safetensors_header(config)
        self._noise = os.urandom(CHUNK)

    @property
    def archive_bytes(self) -> int:
        sizes = [*map(len, self._small.values()), len(self._header) + self._weights_bytes]
        return sum(512 + _padded(size) for size in sizes) + 1024

    def chunks(self) -> Iterator[bytes]:
        """The tar in pieces of `CHUNK` bytes, the last one shorter."""
        waiting = bytearray()
        for piece in self._pieces():
            waiting += piece
            while len(waiting) >= CHUNK:
                yield bytes(waiting[:CHUNK])
                del waiting[:CHUNK]
        if waiting:
            yield bytes(waiting)

    def _pieces(self) -> Iterator[bytes]:
        for name, content in self._small.items():
            yield _member(name, len(content))
            yield content + bytes(_padded(len(content)) - len(content))
        size = len(self._header) + self._weights_bytes
        yield _member("model.safetensors", size)
        yield self._header
        left = self._weights_bytes
        while left:
            yield self._noise[: min(left, CHUNK)]
            left -= min(left, CHUNK)
        yield bytes(_padded(size) - size + 1024)


class PrepareWatch:
    """`with PrepareWatch(server_pid) as watch: …`; then `watch.most`, MiB of the largest prepare process."""

    def __init__(self, server_pid: int) -> None:
        self.most = 0.0
        self._server = psutil.Process(server_pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch prepare", daemon=True)

    def __enter__(self) -> "PrepareWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_EVERY_S):
            with contextlib.suppress(psutil.Error, OSError, KeyError):
                for child in self._server.children(recursive=True):
                    if "dockyard.prepare" in child.cmdline():
                        self.most = max(self.most, most_memory(child.pid))


def most_memory(pid: int) -> float:
    """MiB that were resident at most, as the kernel remembers it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["VmHWM"].split()[0]) / 1024


def _safetensors_header(config: dict[str, Any]) -> tuple[bytes, int]:
    """The header of the weights that the config asks for, and how many bytes follow it."""
    vocabulary, positions = config["vocab_size"], config.get("n_positions", 1024)
    shapes = {"wte.weight": [vocabulary, WIDTH], "wpe.weight": [positions, WIDTH]}
    for number in range(config["n_layer"]):
        parts = {
            "ln_1.weight": [WIDTH],
            "ln_1.bias": [WIDTH],
            "attn.c_attn.weight": [WIDTH, 3 * WIDTH],
            "attn.c_attn.bias": [3 * WIDTH],
            "attn.c_proj.weight": [WIDTH, WIDTH],
            "attn.c_proj.bias": [WIDTH],
            "ln_2.weight": [WIDTH],
            "ln_2.bias": [WIDTH],
            "mlp.c_fc.weight": [WIDTH, 4 * WIDTH],
            "mlp.c_fc.bias": [4 * WIDTH],
            "mlp.c_proj.weight": [4 * WIDTH, WIDTH],
            "mlp.c_proj.bias": [WIDTH],
        }
        shapes |= {f"h.{number}.{name}": shape for name, shape in parts.items()}
    shapes |= {"ln_f.weight": [WIDTH], "ln_f.bias": [WIDTH]}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[f"transformer.{name}"] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text, at


def _member(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(f"random/{name}")
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT)


def _padded(size: int) -> int:
    return -(-size // 512) * 512


if __name__ == "__main__":
    main()
