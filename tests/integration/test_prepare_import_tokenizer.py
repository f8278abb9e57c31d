"""A model whose tokenizer is GPT-2's two old files: imported, converted for CTranslate2, and text comes out."""

import json
import shutil
from pathlib import Path

import ctranslate2
from tests.integration.prepare_rig import GPT2_KJV, Rig

from dockyard.worker.tokenizer import load_tokenizer


async def test_a_tokenizer_of_two_files_becomes_one_that_serves(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "data")
    source = tmp_path / "old"
    shutil.copytree(GPT2_KJV, source)
    core = json.loads((source / "tokenizer.json").read_text())["model"]
    (source / "tokenizer.json").unlink()
    (source / "vocab.json").write_text(json.dumps(core["vocab"]))
    (source / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in core["merges"]))
    imported = await rig.import_model(source)
    assert imported.card
    assert imported.card["tokenizer"] == "tokenizer.json"
    folder = Path(rig.preparer.artifact_dir(imported.key))
    text = "In the beginning God created the heaven"
    tokenizer = load_tokenizer(folder)
    assert tokenizer.encode(text, special=True) == load_tokenizer(GPT2_KJV).encode(text, special=True)
    converted = await rig.convert(imported.key, "no_quantization")
    names = json.loads((Path(rig.preparer.artifact_dir(converted.key)) / "vocabulary.json").read_text())
    generator = ctranslate2.Generator(str(Path(rig.preparer.artifact_dir(converted.key))), intra_threads=1)
    prompt = [names[i] for i in tokenizer.encode(text, special=True)]
    [result] = generator.generate_batch([prompt], max_length=8, include_prompt_in_result=False)
    assert "LORD" in tokenizer.decode(result.sequences_ids[0])
