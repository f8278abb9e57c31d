"""Out and in again, whatever way a model came in first: the same files, digest by digest, under the same key."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file
from tests.tiny_adapters import merged_by_hand, write_adapter, write_base, write_shards
from tests.unit.prepare.tiny_gguf import TinyGguf

from dockyard.domain.adapter import merged_key
from dockyard.prepare.artifacts import Artifacts
from dockyard.prepare.convert_task import run_convert
from dockyard.prepare.export_task import run_export
from dockyard.prepare.import_task import run_import
from dockyard.prepare.reporting import Reporter
from dockyard.protocols.preparation import ConvertTask, ExportTask, ImportTask, Merge, Outcome, PathSource

CONFIG = {"name": "dates", "modelType": "fineTune", "hyperParameters": {"temperature": 0.5, "stopSequence": ["ä"]}}


class Prepare:
    """The tasks run here, one after the other, in folders of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.artifacts = Artifacts(root / "artifacts")
        self._count = 0

    def places(self) -> dict[str, str]:
        self._count += 1
        scratch = self.root / f"scratch-{self._count}"
        scratch.mkdir(parents=True)
        return {"artifacts_dir": str(self.artifacts.root), "scratch_dir": str(scratch)}

    def bring(self, source: Path, base_key: str | None = None) -> Outcome:
        task = ImportTask(source=PathSource(path=str(source)), base_key=base_key, **self.places())
        return run_import(task, Reporter(io.BytesIO()))

    def export(self, key: str, config: dict[str, Any]) -> Path:
        archive = self.root / "exports" / "ds-1.tar"
        task = ExportTask(source_key=key, folder="m", deploy_config=config, archive=str(archive), **self.places())
        run_export(task, Reporter(io.BytesIO()))
        return archive


def gguf(folder: Path) -> Path:
    TinyGguf().write(folder / "m.gguf")
    return folder / "m.gguf"


def sharded(folder: Path) -> Path:
    return write_shards(write_base(folder / "sharded", "llama"))


def without_tokenizer_json(folder: Path) -> Path:
    """vocab.json and merges.txt, of which tokenizer.json is made at import."""
    base = write_base(folder / "bare", "gpt2")
    model = json.loads((base / "tokenizer.json").read_text())["model"]
    (base / "tokenizer.json").unlink()
    (base / "vocab.json").write_text(json.dumps(model["vocab"]))
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (base / "merges.txt").write_text("#version: 0.2\n" + "\n".join(pairs) + "\n")
    return base


@pytest.mark.parametrize("made", [gguf, sharded, without_tokenizer_json])
def test_what_goes_out_comes_in_as_it_was(made: Callable[[Path], Path], tmp_path: Path) -> None:
    here, there = Prepare(tmp_path / "here"), Prepare(tmp_path / "there")
    first = here.bring(made(tmp_path))
    assert first.card is not None
    assert first.card["deploy_config"] is None
    archive = here.export(first.key, CONFIG)
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    again = there.bring(tmp_path / "unpacked" / "m")
    assert again.key == first.key
    assert again.card == {**first.card, "deploy_config": CONFIG}
    assert there.export(again.key, CONFIG).read_bytes() == archive.read_bytes()


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"a": "\\ud800"}', '{"a": {"b": {"c": {"d": {"e": 1}}}}}', '{"\\u0000": 1}']
)
def test_a_deployconfig_that_no_export_wrote_is_no_part_of_the_model(content: str, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", "llama")
    (base / "deployconfig.json").write_text(content)
    outcome = Prepare(tmp_path).bring(base)
    assert outcome.card is not None
    assert outcome.card["deploy_config"] is None


def test_a_base_in_shards_is_merged_shard_by_shard(tmp_path: Path) -> None:
    prepare = Prepare(tmp_path)
    whole, adapter = write_base(tmp_path / "whole", "llama"), write_adapter(tmp_path / "adapter", "llama")
    base_key = prepare.bring(sharded(tmp_path)).key
    adapter_key = prepare.bring(adapter, base_key).key
    key = merged_key(base_key, adapter_key)
    merge = Merge(adapter_key=adapter_key, base_key=base_key)
    task = ConvertTask(
        source_key=key, engine="transformers", quantization="no_quantization", merge=merge, **prepare.places()
    )
    assert run_convert(task, Reporter(io.BytesIO())).key == key
    folder = prepare.artifacts.folder(key)
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    expected = merged_by_hand(load_file(whole / "model.safetensors"), load_file(adapter / "adapter_model.safetensors"))
    for name, shard in index.items():
        assert abs(load_file(folder / shard)[name] - expected[name]).max() < 1e-5
    assert not (folder / "adapter_config.json").exists()
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "tokenizer.json", "chat_template.jinja", "manifest.json"} <= names
