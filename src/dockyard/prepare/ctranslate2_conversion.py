"""Conversion to CTranslate2: the only place that imports its converter, with torch and Transformers behind it."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dockyard.domain.job import Phase
from dockyard.domain.spec import Quantization
from dockyard.errors import Failed, Reason
from dockyard.prepare.folder import tensors_of
from dockyard.prepare.reporting import Reporter
from dockyard.prepare.safetensors_header import FLOAT_NAMES

# Where each stage begins on the bar, by what SmolLM2-135M takes on two cores: importing torch 2 of 9 s, reading with
# the imports that it brings 3, arranging next to nothing, comparing and quantizing 3, writing 1.
_IMPORT, _READ, _ARRANGE, _QUANTIZE, _WRITE, _END = 0.0, 0.22, 0.52, 0.54, 0.86, 0.97
_LOOK_EVERY_S = 0.2

_EXPECTED_FILES = ("model.bin", "config.json")


def convert(source: Path, built: Path, quantization: str, reporter: Reporter) -> None:
    """Convert the model folder `source` into the new folder `built`. Only `source` is read; nothing is fetched.

    `no_quantization` keeps the precision that is stored, so that float32 computation gives what Transformers gives.
    Raises `Failed` (CONVERSION_FAILED) when the result is incomplete; what the converter raises comes through.
    """
    aim = f"CTranslate2 {quantization}"
    reporter.progress(Phase.OPTIMIZING, _IMPORT, f"loading the converter for {aim}")
    import ctranslate2
    import torch
    from transformers.utils import logging

    from dockyard.prepare.ctranslate2_loading import spec_of

    stored = torch_dtype_name(source)
    reporter.progress(Phase.OPTIMIZING, _READ, "reading the weights")
    with _told_by_transformers(logging, lambda share: _tell(reporter, _READ, _ARRANGE, share, "reading the weights")):
        spec = spec_of(source, getattr(torch, stored))
    reporter.progress(Phase.OPTIMIZING, _ARRANGE, f"arranging the weights for {aim}")
    spec.validate()
    with _watched(lambda: _tell(reporter, _QUANTIZE, _WRITE, _quantized_share(spec), f"converting weights to {aim}")):
        spec.optimize(quantization=None if quantization == Quantization.NONE else quantization)
    built.mkdir()
    total = max(1, _bytes_of(spec))
    with _watched(lambda: _tell(reporter, _WRITE, _END, _bytes_in(built) / total, f"writing {aim}")):
        spec.save(str(built))
    missing = [name for name in _EXPECTED_FILES if not (built / name).is_file()]
    if missing or not ctranslate2.contains_model(str(built)) or _bytes_in(built) < total:
        raise Failed(
            f"the converter left an incomplete model behind (absent: {', '.join(missing) or 'part of the weights'}); "
            "deploy again",
            reason=Reason.CONVERSION_FAILED,
        )


def torch_dtype_name(source: Path) -> str:
    """The type to read the weights in: the stored one; float32 where several are mixed, so that none loses digits."""
    shards = sorted(path.name for path in source.iterdir() if path.name.endswith(".safetensors"))
    kinds = {tensor.dtype for tensors in tensors_of(source.resolve(), shards).values() for tensor in tensors}
    floats = kinds & FLOAT_NAMES.keys()
    return FLOAT_NAMES[floats.pop()] if len(floats) == 1 else "float32"


def _tell(reporter: Reporter, start: float, end: float, share: float, message: str) -> None:
    reporter.progress(Phase.OPTIMIZING, start + (end - start) * min(1.0, share), message)


@contextmanager
def _told_by_transformers(logging: Any, on_share: Callable[[float], None]) -> Iterator[None]:
    """While this lasts, Transformers' bar over the weights it reads tells `on_share`."""

    def counted(items: Iterable[Any], total: int) -> Iterator[Any]:
        for done, item in enumerate(items):
            on_share(done / max(1, total))
            yield item

    def hook(make: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args and kwargs.get("desc") == "Loading weights" and hasattr(args[0], "__len__"):
            return counted(args[0], len(args[0]))
        return make(*args, **kwargs)

    if not hasattr(logging, "set_tqdm_hook"):  # Transformers before 5.0 had no such place
        yield
        return
    before = logging.set_tqdm_hook(hook)
    try:
        yield
    finally:
        logging.set_tqdm_hook(before)


@contextmanager
def _watched(look: Callable[[], None]) -> Iterator[None]:
    """Call `look` a few times a second, on a thread, while the library works without a word."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK_EVERY_S):
            look()

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _quantized_share(spec: Any) -> float:
    """How many of the weights that can be quantized have their scale by now."""
    variables = spec.variables()
    scales = [name for name in variables if name.endswith("weight_scale")]
    quantizable = sum(1 for name, value in variables.items() if name.endswith("/weight") and not isinstance(value, str))
    return len(scales) / max(1, quantizable)


def _bytes_of(spec: Any) -> int:
    """What `save` will write at least: every variable once, aliases not at all."""
    return sum(variable.num_bytes() for variable in spec.variables().values() if not isinstance(variable, str))


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
