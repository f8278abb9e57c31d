"""A tiny model folder that is let in; each test bends its own copy."""

from pathlib import Path

import pytest
from tests.unit.prepare.model_folders import LLAMA, safetensors_bytes, tokenizer_text, write_json


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A folder that is let in: config, tokenizer, one float32 tensor of 2 × 3."""
    folder = tmp_path / "model"
    folder.mkdir()
    write_json(folder / "config.json", LLAMA)
    (folder / "tokenizer.json").write_text(tokenizer_text())
    (folder / "model.safetensors").write_bytes(safetensors_bytes({"w": ("F32", [2, 3], bytes(24))}))
    return folder
