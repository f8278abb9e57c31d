"""Import in a process of its own: stored once, verified, described; damage is found."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.prepare_rig import GPT2_KJV, T5_DATE, Rig

from dockyard.domain.job import PHASES, Action
from dockyard.errors import Failed, Reason
from dockyard.prepare.manifest import read_manifest
from dockyard.protocols.preparation import ConvertTask


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "data")


async def test_the_files_are_stored_as_they_are(rig: Rig) -> None:
    outcome = await rig.import_model(T5_DATE)
    folder = Path(rig.preparer.artifact_dir(outcome.key))
    manifest = read_manifest(folder)
    assert {entry.name for entry in manifest.files} == set(os.listdir(T5_DATE))
    for entry in manifest.files:
        assert (folder / entry.name).read_bytes() == (T5_DATE / entry.name).read_bytes()
        assert (folder / entry.name).stat().st_mode & 0o222 == 0
    assert outcome.size_bytes == sum(path.stat().st_size for path in T5_DATE.iterdir())
    assert rig.stored == {outcome.key}
    assert rig.in_scratch == []


async def test_the_card_tells_what_the_files_say(rig: Rig) -> None:
    t5 = (await rig.import_model(T5_DATE)).card
    gpt2 = (await rig.import_model(GPT2_KJV)).card
    assert t5
    assert gpt2
    assert (t5["family"], t5["parameters"], t5["context_length"]) == ("encoder_decoder", 521_920, None)
    assert (t5["kv_bytes_per_token"], t5["decoder_start_token_id"], t5["eos_token_ids"]) == (768, 0, [1])
    assert (gpt2["family"], gpt2["parameters"], gpt2["context_length"]) == ("decoder", 2_222_208, 256)
    assert (gpt2["kv_bytes_per_token"], gpt2["dtype"], gpt2["chat_template"]) == (3072, "float32", False)


async def test_progress_goes_through_the_phases_of_an_import(rig: Rig) -> None:
    await rig.import_model(GPT2_KJV)
    phases = [str(phase) for phase, _ in PHASES[Action.IMPORT]]
    steps = [(phases.index(line.phase), line.share) for line in rig.told]
    assert steps == sorted(steps)
    assert {line.phase for line in rig.told} == {"COPYING", "VALIDATING"}
    assert rig.told[-1].share == 1.0


async def test_the_same_files_are_stored_once(rig: Rig) -> None:
    first = await rig.import_model(T5_DATE)
    again = await rig.import_model(T5_DATE)
    assert (first.reused, again.reused) == (False, True)
    assert first.key == again.key
    assert first.card == again.card
    assert rig.stored == {first.key}
    assert rig.in_scratch == []


async def test_a_refusal_carries_its_reason_and_leaves_nothing(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(Failed) as caught:
        await rig.import_model(tmp_path / "model")
    assert caught.value.reason is Reason.CONFIG_MISSING
    assert caught.value.log_tail == ()
    assert rig.stored == set()
    assert rig.in_scratch == []


async def test_a_path_that_is_not_there(rig: Rig) -> None:
    with pytest.raises(Failed, match="…/model;") as caught:
        await rig.import_model(Path("/no/such/model"))
    assert caught.value.reason is Reason.PATH_NOT_FOUND


async def test_verification_finds_changed_bytes_and_notes_touched_files(rig: Rig) -> None:
    outcome = await rig.import_model(T5_DATE)
    task = _verification(outcome.key)
    folder = Path(rig.preparer.artifact_dir(outcome.key))
    weights = folder / "model.safetensors"
    assert (await rig.preparer.run(task, rig.listen)).key == outcome.key

    os.utime(weights, ns=(1, 1))
    await rig.preparer.run(task, rig.listen)
    assert {entry.name: entry.mtime_ns for entry in read_manifest(folder).files}["model.safetensors"] == 1

    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(content)
    await _is_corrupt(rig, task, "model.safetensors")
    (folder / "config.json").unlink()
    await _is_corrupt(rig, task, "config.json, model.safetensors")


def _verification(key: str) -> ConvertTask:
    """For an engine without a converter there is nothing to do but to verify."""
    return ConvertTask(
        source_key=key, engine="transformers", quantization="no_quantization", artifacts_dir="", scratch_dir=""
    )


async def _is_corrupt(rig: Rig, task: ConvertTask, names: str) -> None:
    with pytest.raises(Failed, match=names) as caught:
        await rig.preparer.run(task, rig.listen)
    assert caught.value.reason is Reason.ARTIFACT_CORRUPT
    assert str(rig.artifacts) not in caught.value.message


async def test_a_damaged_artifact_is_mended_by_importing_again(rig: Rig) -> None:
    outcome = await rig.import_model(T5_DATE)
    (Path(rig.preparer.artifact_dir(outcome.key)) / "config.json").unlink()
    assert not (await rig.import_model(T5_DATE)).reused
    await rig.preparer.run(_verification(outcome.key), rig.listen)
    assert rig.in_scratch == []


async def test_discarding_removes_the_files(rig: Rig) -> None:
    outcome = await rig.import_model(T5_DATE)
    assert await rig.preparer.discard(outcome.key) >= outcome.size_bytes
    assert rig.stored == set()
    assert await rig.preparer.discard(outcome.key) == 0


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[None]:
    """A working directory with a module that would end any process that imports it."""
    before = Path.cwd()
    (tmp_path / "msgspec.py").write_text("raise SystemExit(9)")
    os.chdir(tmp_path)
    yield
    os.chdir(before)


@pytest.mark.usefixtures("trap")
async def test_no_module_comes_from_the_working_directory(rig: Rig) -> None:
    assert (await rig.import_model(T5_DATE)).key


def test_the_server_side_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'ctranslate2', 'numpy', 'gguf', 'tokenizers'}"
    check = f"import sys, dockyard.prepare.runner; sys.exit(str({heavy} & sys.modules.keys() or '') or 0)"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_installed_looks_without_importing(rig: Rig) -> None:
    assert rig.preparer.installed("echo")
    assert rig.preparer.installed("ctranslate2")
    assert not rig.preparer.installed("no such engine")
