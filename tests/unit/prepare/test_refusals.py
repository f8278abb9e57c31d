"""What a folder must be to be let in: each refusal has its own reason and tells how to mend it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.prepare.model_folders import LLAMA, safetensors_bytes, write_json

from dockyard.errors import Failed, Reason
from dockyard.prepare.folder import look_at_folder

Bend = Callable[[Path], object]


def _config(**fields: object) -> Bend:
    return lambda folder: write_json(folder / "config.json", {**LLAMA, **fields})


def _write(name: str, content: bytes) -> Bend:
    return lambda folder: (folder / name).write_bytes(content)


def _remove(*names: str) -> Bend:
    return lambda folder: [(folder / name).unlink() for name in names]


def _only_pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _link_out(name: str) -> Bend:
    def bend(folder: Path) -> None:
        outside = folder.parent / "secret"
        outside.write_text("{}")
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(outside)

    return bend


def _index(weight_map: object) -> Bend:
    def bend(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
        write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})

    return bend


_GOOD = safetensors_bytes({"w": ("F32", [2, 3], bytes(24))})

REFUSALS: list[tuple[str, Bend, Reason, str]] = [
    ("code", _write("modeling.py", b"print()"), Reason.CODE_REFUSED, "modeling.py"),
    ("no config", _remove("config.json"), Reason.CONFIG_MISSING, "config.json"),
    ("config no JSON", _write("config.json", b"{"), Reason.CONFIG_UNREADABLE, "config.json"),
    ("config a list", _write("config.json", b"[]"), Reason.CONFIG_UNREADABLE, "config.json"),
    ("config too deep", _write("config.json", b"[" * 500_000), Reason.CONFIG_UNREADABLE, "config.json"),
    ("config too large", _write("config.json", b" " * (1 << 20) + b"{}"), Reason.CONFIG_UNREADABLE, "1024 KiB"),
    ("no architecture", _config(architectures=None), Reason.CONFIG_UNREADABLE, "architectures"),
    ("architecture no text", _config(architectures=[7]), Reason.CONFIG_UNREADABLE, "architectures"),
    ("auto_map", _config(auto_map={"AutoModel": "x.Y"}), Reason.AUTO_MAP_REFUSED, "config.json"),
    (
        "auto_map of the tokenizer",
        _write("tokenizer_config.json", b'{"auto_map": {}}'),
        Reason.AUTO_MAP_REFUSED,
        "tokenizer_config.json",
    ),
    ("tokenizer config", _write("tokenizer_config.json", b"["), Reason.TOKENIZER_UNREADABLE, "tokenizer_config.json"),
    ("encoder", _config(architectures=["BertForMaskedLM"]), Reason.ENCODER_ONLY, "BertForMaskedLM"),
    ("encoder of T5", _config(architectures=["T5EncoderModel"]), Reason.ENCODER_ONLY, "T5EncoderModel"),
    ("classifier", _config(architectures=["LlamaForSequenceClassification"]), Reason.ENCODER_ONLY, "no text"),
    ("no head", _config(architectures=["LlamaModel"]), Reason.ENCODER_ONLY, "LlamaModel"),
    ("unknown", _config(architectures=["MambaForCausalLM"]), Reason.ARCHITECTURE_UNKNOWN, "LlamaForCausalLM"),
    ("no tokenizer", _remove("tokenizer.json"), Reason.TOKENIZER_MISSING, "tokenizer.json"),
    ("tokenizer no JSON", _write("tokenizer.json", b"{"), Reason.TOKENIZER_UNREADABLE, "tokenizer.json"),
    ("tokenizer of nothing", _write("tokenizer.json", b"{}"), Reason.TOKENIZER_UNREADABLE, "tokenizer.json"),
    ("no weights", _remove("model.safetensors"), Reason.WEIGHTS_MISSING, "model.safetensors"),
    ("only pickled", _only_pickled, Reason.PICKLE_REFUSED, "pytorch_model.bin"),
    ("weights cut", _write("model.safetensors", _GOOD[:-1]), Reason.WEIGHTS_UNREADABLE, "promises 24 bytes"),
    ("weights longer", _write("model.safetensors", _GOOD + b"x"), Reason.WEIGHTS_UNREADABLE, "25 are there"),
    ("weights empty", _write("model.safetensors", b""), Reason.WEIGHTS_UNREADABLE, "model.safetensors"),
    ("index no map", _index([]), Reason.WEIGHTS_UNREADABLE, "weight_map"),
    ("shard absent", _index({"w": "model-00002-of-00002.safetensors"}), Reason.WEIGHTS_MISSING, "00002-of-00002"),
    ("shard outside", _index({"w": "../x.safetensors"}), Reason.WEIGHTS_MISSING, "../x.safetensors"),
    (
        "tensor in another shard",
        _index({"v": "model-00001-of-00002.safetensors"}),
        Reason.WEIGHTS_UNREADABLE,
        "do not hold them: v",
    ),
    ("link out", _link_out("config.json"), Reason.PATH_NOT_ALLOWED, "config.json"),
    ("link out that nobody reads", _link_out("notes.txt"), Reason.PATH_NOT_ALLOWED, "notes.txt"),
    ("folder link out", lambda folder: (folder / "d").symlink_to("/"), Reason.PATH_NOT_ALLOWED, "d is a link"),
    ("link to itself", lambda folder: (folder / "c").symlink_to("c"), Reason.PATH_NOT_ALLOWED, "c is a link"),
    ("a FIFO", lambda folder: os.mkfifo(folder / "pipe"), Reason.SOURCE_NOT_SUPPORTED, "pipe"),
    ("GGUF beside", lambda folder: [_write("m.gguf", b"")(folder), _remove("config.json")(folder)],
     Reason.CONFIG_MISSING, "m.gguf"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("bend", "reason", "words"), [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS]
)
def test_refusal(model_folder: Path, bend: Bend, reason: Reason, words: str) -> None:
    bend(model_folder)
    with pytest.raises(Failed) as caught:
        look_at_folder(model_folder)
    assert caught.value.reason is reason
    assert words in caught.value.message
    assert str(model_folder) not in caught.value.message


def test_only_what_makes_up_the_model_is_copied(model_folder: Path) -> None:
    for name in ("pytorch_model.bin", "training_args.bin", "notes.txt", "consolidated.safetensors", "tf_model.h5"):
        (model_folder / name).write_bytes(b"x")
    for name in ("LICENSE", "README.md", "chat_template.jinja", "generation_config.json", "merges.txt"):
        (model_folder / name).write_text("{}")
    (model_folder / "onnx").mkdir()
    assert set(look_at_folder(model_folder).files) == {
        "config.json", "tokenizer.json", "model.safetensors", "LICENSE", "README.md", "chat_template.jinja",
        "generation_config.json", "merges.txt",
    }  # fmt: skip


def test_shards_come_with_their_index(model_folder: Path) -> None:
    _index({"w": "model-00001-of-00002.safetensors"})(model_folder)
    assert {"model.safetensors.index.json", "model-00001-of-00002.safetensors"} <= set(
        look_at_folder(model_folder).files
    )


def test_a_link_inside_the_folder_is_followed(model_folder: Path) -> None:
    (model_folder / "blobs").mkdir()
    (model_folder / "config.json").rename(model_folder / "blobs" / "b")
    (model_folder / "config.json").symlink_to("blobs/b")
    assert look_at_folder(model_folder).architecture.name == "LlamaForCausalLM"


def test_echo_needs_neither_tokenizer_nor_weights(model_folder: Path) -> None:
    _remove("tokenizer.json", "model.safetensors")(model_folder)
    _config(architectures=["EchoForCausalLM"])(model_folder)
    assert look_at_folder(model_folder).files == ("config.json",)
