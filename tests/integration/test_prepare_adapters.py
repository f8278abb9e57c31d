"""Adapters through the prepare process: checked at import, merged once for all engines, exported and imported back."""

import json
import shutil
import tarfile
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from tests.integration.prepare_rig import Rig
from tests.tiny_adapters import merged_by_hand, write_adapter, write_base

from dockyard.domain.adapter import apart_key, merged_key
from dockyard.errors import Failed, Reason
from dockyard.prepare.manifest import read_manifest
from dockyard.protocols.preparation import ConvertTask, ExportTask, ImportTask, Merge, Outcome, PathSource


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "data")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / "base", "llama")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "adapter", "llama")


async def bring(rig: Rig, source: Path, base_key: str | None = None, base_problem: str | None = None) -> Outcome:
    task = ImportTask(
        source=PathSource(path=str(source)),
        artifacts_dir="",
        scratch_dir="",
        base_key=base_key,
        base_problem=base_problem,
    )
    return await rig.preparer.run(task, rig.listen)


async def make(rig: Rig, base_key: str, adapter_key: str, engine: str) -> Outcome:
    task = ConvertTask(
        source_key=merged_key(base_key, adapter_key),
        engine=engine,
        quantization="no_quantization",
        artifacts_dir="",
        scratch_dir="",
        merge=Merge(adapter_key=adapter_key, base_key=base_key),
    )
    return await rig.preparer.run(task, rig.listen)


async def test_laid_beside_its_base_without_the_base_s_weights(rig: Rig, base: Path, adapter: Path) -> None:
    base_key = (await bring(rig, base)).key
    adapter_key = (await bring(rig, adapter, base_key)).key
    key = apart_key(base_key, adapter_key)
    task = ConvertTask(
        source_key=key,
        engine="vllm",
        quantization="no_quantization",
        artifacts_dir="",
        scratch_dir="",
        merge=Merge(adapter_key=adapter_key, base_key=base_key, apart=True),
    )
    outcome = await rig.preparer.run(task, rig.listen)
    assert (outcome.key, outcome.merged_bytes) == (key, outcome.size_bytes)
    folder = Path(rig.preparer.artifact_dir(key))
    names = {path.name for path in folder.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "config.json", "tokenizer.json"} <= names
    assert "model.safetensors" not in names
    assert rig.preparer.cached(key, "vllm", "no_quantization") == key


async def test_merged_once_and_shared_by_the_engines(rig: Rig, base: Path, adapter: Path) -> None:
    base_key = (await bring(rig, base)).key
    imported = await bring(rig, adapter, base_key)
    assert imported.size_bytes < 100_000
    assert imported.card is not None
    assert imported.card["adapter"]["base_key"] == base_key
    key = merged_key(base_key, imported.key)
    assert rig.preparer.cached(key, "transformers", "no_quantization") is None

    rig.told.clear()
    first = await make(rig, base_key, imported.key, "transformers")
    assert (first.key, first.merged_bytes) == (key, first.size_bytes)
    assert "merging the adapter" in " ".join(line.message for line in rig.told)
    assert rig.told[-1].share == 1.0
    assert rig.preparer.cached(key, "transformers", "no_quantization") == key
    folder = Path(rig.preparer.artifact_dir(key))
    expected = merged_by_hand(load_file(base / "model.safetensors"), load_file(adapter / "adapter_model.safetensors"))
    found = load_file(folder / "model.safetensors")
    assert all(abs(found[name] - expected[name]).max() < 1e-5 for name in expected)
    assert (read_manifest(folder).source_key, read_manifest(folder).base_key) == (imported.key, base_key)

    before = {path.name: path.stat().st_ino for path in folder.iterdir()}
    rig.told.clear()
    second = await make(rig, base_key, imported.key, "ctranslate2")
    shares = [line.share for line in rig.told]
    assert shares == sorted(shares)
    assert {path.name: path.stat().st_ino for path in folder.iterdir()} == before
    assert rig.preparer.cached(key, "ctranslate2", "no_quantization") == second.key
    assert rig.in_scratch == []

    (folder / "model.safetensors").unlink()  # damaged, or pruned: made anew
    assert (await make(rig, base_key, imported.key, "transformers")).key == key
    assert rig.preparer.cached(key, "transformers", "no_quantization") == key

    (folder / "model.safetensors").unlink()
    (Path(rig.preparer.artifact_dir(base_key)) / "config.json").unlink()
    with pytest.raises(Failed, match=r"the adapter's base model: .*config\.json") as caught:
        await make(rig, base_key, imported.key, "transformers")
    assert caught.value.reason is Reason.ARTIFACT_CORRUPT


async def test_an_adapter_needs_a_base_that_can_be_one(rig: Rig, base: Path, adapter: Path, tmp_path: Path) -> None:
    echo = Path(__file__).parents[1] / "models" / "echo"
    for reason, words, base_key, problem in (
        (Reason.BASE_MODEL_MISSING, "baseModelId.*--base", None, None),
        (Reason.BASE_MODEL_NOT_USABLE, "base is an adapter itself", None, "base is an adapter itself"),
        (Reason.BASE_MODEL_NOT_USABLE, "has no weights", (await bring(rig, echo)).key, None),
    ):
        with pytest.raises(Failed, match=words) as caught:
            await bring(rig, adapter, base_key, problem)
        assert caught.value.reason is reason
    assert len(rig.stored) == 1
    await bring(rig, base, base_problem="whole weights do not mind")


async def test_an_export_names_the_base_by_its_digest(rig: Rig, base: Path, adapter: Path, tmp_path: Path) -> None:
    base_key = (await bring(rig, base)).key
    first = await bring(rig, adapter, base_key)
    config = {"name": "tuned", "baseModel": {"artifactKey": base_key, "name": "tiny"}}
    unpacked = tmp_path / "unpacked"
    archive = await _export(rig, first.key, config, unpacked)
    again = await bring(rig, unpacked / "tuned")
    assert again.key == first.key
    assert again.card is not None
    assert again.card["deploy_config"] == config
    shutil.rmtree(unpacked)
    assert await _export(rig, again.key, config, unpacked) == archive

    elsewhere = Rig(tmp_path / "elsewhere")
    with pytest.raises(Failed, match="exported with the base model 'tiny'") as caught:
        await bring(elsewhere, unpacked / "tuned")
    assert caught.value.reason is Reason.BASE_MODEL_MISSING
    await bring(elsewhere, base)
    assert (await bring(elsewhere, unpacked / "tuned")).key == first.key


async def _export(rig: Rig, key: str, config: dict[str, object], unpacked: Path) -> bytes:
    archive = rig.exports / "ds-1.tar"
    task = ExportTask(
        source_key=key,
        folder="tuned",
        deploy_config=config,
        archive=str(archive),
        artifacts_dir="",
        scratch_dir="",
    )
    await rig.preparer.run(task, rig.listen)
    with tarfile.open(archive) as tar:
        tar.extractall(unpacked, filter="data")
    assert json.loads((unpacked / "tuned" / "deployconfig.json").read_text()) == config
    return archive.read_bytes()
