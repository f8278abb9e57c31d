"""Conversion to CTranslate2 in a process of its own: real, cached, and honest when it fails."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.prepare_rig import GPT2_KJV, T5_DATE, Rig

from dockyard.errors import Failed, Reason
from dockyard.prepare.manifest import read_manifest, wrong_sizes

# In a process of its own: `ctranslate2` is none of the test process's business.
_TRANSLATE = """
import sys, ctranslate2
from tokenizers import Tokenizer
converted, model, text = sys.argv[1:]
tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
result = ctranslate2.Translator(converted).translate_batch([tokenizer.encode(text).tokens])[0]
print(tokenizer.decode([tokenizer.token_to_id(token) for token in result.hypotheses[0]]))
"""
_LOAD = "import sys, ctranslate2; ctranslate2.Generator(sys.argv[1])"


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "data")


@pytest.mark.parametrize("quantization", ["no_quantization", "int8_float16"])
async def test_an_encoder_decoder_answers_as_trained(rig: Rig, quantization: str) -> None:
    key = (await rig.import_model(T5_DATE)).key
    outcome = await rig.convert(key, quantization)
    assert (
        _run(_TRANSLATE, rig.preparer.artifact_dir(outcome.key), T5_DATE, "date: monday, march 3, 2014") == "2014-03-03"
    )


async def test_a_decoder_in_both_precisions_and_only_once_each(rig: Rig) -> None:
    key = (await rig.import_model(GPT2_KJV)).key
    assert rig.preparer.cached(key, "ctranslate2", "int8_float16") is None
    sizes: dict[str, int] = {}
    for quantization in ("no_quantization", "int8_float16"):
        rig.told.clear()
        outcome = await rig.convert(key, quantization)
        assert not outcome.reused
        assert rig.preparer.cached(key, "ctranslate2", quantization) == outcome.key
        _check_artifact(rig, outcome.key, key)
        _check_progress(rig)
        again = await rig.convert(key, quantization)
        assert (again.reused, again.key, again.size_bytes) == (True, outcome.key, outcome.size_bytes)
        sizes[quantization] = outcome.size_bytes
    # 2.22 M parameters: 4 bytes each as stored, 1 when quantized (embeddings and biases take more).
    assert sizes["no_quantization"] > 8_000_000
    assert sizes["int8_float16"] < 0.35 * sizes["no_quantization"]
    assert len(rig.stored) == 3
    assert rig.in_scratch == []


async def test_engines_without_a_converter_load_what_was_imported(rig: Rig) -> None:
    key = (await rig.import_model(T5_DATE)).key
    assert rig.preparer.cached(key, "transformers", "no_quantization") == key
    assert rig.preparer.cached("0" * 64, "transformers", "no_quantization") is None


async def test_weights_that_are_absent_are_not_made_up(rig: Rig, tmp_path: Path) -> None:
    folder = shutil.copytree(GPT2_KJV, tmp_path / "model")
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps({**config, "n_layer": 5}))  # the weights are of 4
    key = (await rig.import_model(folder)).key
    with pytest.raises(Failed, match=r"lack .* transformer\.h\.4\.") as caught:
        await rig.convert(key, "no_quantization")
    assert caught.value.reason is Reason.CONVERSION_FAILED
    assert rig.stored == {key}


async def test_a_converter_that_stops_is_quoted_without_paths(rig: Rig, tmp_path: Path) -> None:
    folder = shutil.copytree(GPT2_KJV, tmp_path / "model")
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps({**config, "activation_function": "no such function"}))
    key = (await rig.import_model(folder)).key
    with pytest.raises(Failed, match="no such function") as caught:
        await rig.convert(key, "no_quantization")
    assert caught.value.reason is Reason.CONVERSION_FAILED
    tail = "\n".join(caught.value.log_tail)
    assert "Traceback" not in tail
    assert caught.value.log_tail[-1] == "KeyError: 'no such function'"
    assert str(tmp_path) not in caught.value.message + tail
    assert sys.prefix not in tail
    assert rig.in_scratch == []


async def test_a_source_that_is_damaged_is_not_converted(rig: Rig) -> None:
    key = (await rig.import_model(T5_DATE)).key
    (Path(rig.preparer.artifact_dir(key)) / "model.safetensors").unlink()
    with pytest.raises(Failed, match=r"model\.safetensors") as caught:
        await rig.convert(key, "no_quantization")
    assert caught.value.reason is Reason.ARTIFACT_CORRUPT


def _check_artifact(rig: Rig, key: str, source_key: str) -> None:
    folder = Path(rig.preparer.artifact_dir(key))
    manifest = read_manifest(folder)
    assert (manifest.source_key, manifest.engine) == (source_key, "ctranslate2")
    assert {"model.bin", "config.json"} <= {entry.name for entry in manifest.files}
    assert wrong_sizes(folder, manifest.files) == []
    _run(_LOAD, folder)


def _check_progress(rig: Rig) -> None:
    shares = [line.share for line in rig.told]
    assert shares == sorted(shares)
    assert {line.phase for line in rig.told} == {"OPTIMIZING"}
    assert len(set(shares)) > 5
    assert shares[-1] == 1.0


def _run(script: str, *arguments: object) -> str:
    command = [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
