"""CTranslate2 artifacts of the test models, made in a process of its own: the tests' one need not import torch."""

import subprocess
import sys
from pathlib import Path

MODELS = Path(__file__).parent / "models"
PAIRS = [(model, quantization) for model in ("gpt2-kjv", "t5-date") for quantization in ("float32", "int8_float16")]

_CONVERT = """
import sys
from ctranslate2.converters import TransformersConverter
for name in sys.argv[2:]:
    model, quantization = name.split(":")
    TransformersConverter(f"{sys.argv[1]}/{model}").convert(name, quantization=quantization)
"""


def convert_all(folder: Path) -> None:
    """Convert each model in each precision to the folder `artifact_of` names."""
    names = [f"{model}:{quantization}" for model, quantization in PAIRS]
    subprocess.run([sys.executable, "-W", "ignore", "-c", _CONVERT, str(MODELS), *names], cwd=folder, check=True)


def artifact_of(folder: Path, model: str, quantization: str) -> Path:
    return folder / f"{model}:{quantization}"
