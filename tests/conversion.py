"""CTranslate2 artifacts of the test models, made in a process of its own: the tests' one need not import torch."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

MODELS = Path(__file__).parent / "models"

_CONVERT = """
import sys
from ctranslate2.converters import TransformersConverter
for name in sys.argv[2:]:
    model, quantization = name.split(":")
    TransformersConverter(f"{sys.argv[1]}/{model}").convert(name, quantization=quantization)
"""


def convert(folder: Path, pairs: Iterable[tuple[str, str]]) -> None:
    """Convert each (model, quantization) to the folder `artifact_of` names."""
    names = [f"{model}:{quantization}" for model, quantization in pairs]
    subprocess.run([sys.executable, "-W", "ignore", "-c", _CONVERT, str(MODELS), *names], cwd=folder, check=True)


def artifact_of(folder: Path, model: str, quantization: str) -> Path:
    return folder / f"{model}:{quantization}"
