"""Uploads in the prepare process: imported from their chunks, refused with their reason, and nothing left behind."""

import io
import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.hostile_tars import TARS, entry, tar
from tests.hostile_zips import ZIPS, Part, make_zip
from tests.integration.prepare_rig import GPT2_KJV, Rig
from tests.tiny_adapters import write_adapter, write_base
from tests.unit.prepare.model_folders import LLAMA, safetensors_bytes, tokenizer_text

from dockyard.errors import Failed, Reason
from dockyard.protocols.preparation import ImportTask, Outcome, UploadSource

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
CONFIG = json.dumps(LLAMA).encode()
WEIGHTS = safetensors_bytes({"w": ("F32", [2, 3], bytes(24))})
TOKENIZER = tokenizer_text().encode()


async def import_upload(
    rig: Rig,
    content: bytes,
    extension: str,
    chunk_bytes: int = 1 << 20,
    base_key: str | None = None,
    is_adapter: bool | None = None,
) -> Outcome:
    folder = rig.artifacts.parent / "uploads"
    folder.mkdir(parents=True)
    pieces = [content[at : at + chunk_bytes] for at in range(0, len(content), chunk_bytes)]
    for number, piece in enumerate(pieces):
        (folder / str(number)).write_bytes(piece)
    source = UploadSource(folder=str(folder), chunks=len(pieces), extension=extension, is_adapter=is_adapter)
    task = ImportTask(source=source, artifacts_dir="", scratch_dir="", base_key=base_key)
    return await rig.preparer.run(task, rig.listen)


@contextmanager
def refused(rig: Rig, reason: Reason) -> Iterator[None]:
    with pytest.raises(Failed) as refusal:
        yield
    assert refusal.value.reason is reason, refusal.value.message
    assert rig.stored == set()
    assert rig.in_scratch == []


def folder_as_tar(folder: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.add(folder, "model")
    return out.getvalue()


async def test_chunks_become_the_same_artifact_as_the_folder(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "data")
    outcome = await import_upload(rig, folder_as_tar(GPT2_KJV), "tar", chunk_bytes=333_333)
    by_path = await rig.import_model(GPT2_KJV)
    assert (outcome.key, by_path.reused) == (by_path.key, True)
    assert rig.in_scratch == []
    shares = [(told.phase, told.share) for told in rig.told]
    assert shares.index(("COPYING", 0.0)) == 0
    assert os.listdir(rig.artifacts.parent / "uploads")  # the server removes them, once the job has ended


async def test_an_adapter_is_checked_against_its_base(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "data")
    base = await rig.import_model(write_base(tmp_path / "base", "llama"))
    archive = folder_as_tar(write_adapter(tmp_path / "adapter", "llama"))
    outcome = await import_upload(rig, archive, "tar", base_key=base.key)
    assert outcome.card is not None
    assert outcome.card["adapter"]["base_key"] == base.key


@pytest.mark.parametrize(("holds_adapter", "told"), [(True, False), (False, True)])
async def test_what_the_client_says_of_an_adapter_is_compared(holds_adapter: bool, told: bool, tmp_path: Path) -> None:
    rig = Rig(tmp_path / "data")
    folder = write_adapter(tmp_path / "adapter", "llama") if holds_adapter else GPT2_KJV
    with refused(rig, Reason.ADAPTER_MISMATCH):
        await import_upload(rig, folder_as_tar(folder), "tar", is_adapter=told)


async def test_an_export_comes_back_with_how_it_was_deployed(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "data")
    imported = await rig.import_model(GPT2_KJV)
    _, archive = await rig.export(imported.key)
    outcome = await import_upload(rig, archive.read_bytes(), "tar")
    assert (outcome.key, outcome.reused) == (imported.key, True)
    assert outcome.card is not None
    assert outcome.card["deploy_config"] == {"name": "smöl"}


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"config.json": CONFIG, "modeling.py": b"import os"}, Reason.CODE_REFUSED),
        ({"config.json": CONFIG, "pytorch_model.bin": b"pickle", "tokenizer.json": TOKENIZER}, Reason.PICKLE_REFUSED),
        ({"config.json": json.dumps({**LLAMA, "auto_map": {}}).encode()}, Reason.AUTO_MAP_REFUSED),
        ({"config.json": b"[" * 100_000}, Reason.CONFIG_UNREADABLE),
        ({"readme.md": b"no model"}, Reason.CONFIG_MISSING),
        ({"config.json": CONFIG, "model.safetensors": b"\xff" * 8}, Reason.WEIGHTS_UNREADABLE),
        ({"config.json": CONFIG, "model.safetensors": (1 << 40).to_bytes(8, "little")}, Reason.WEIGHTS_UNREADABLE),
        ({"config.json": CONFIG, "model.safetensors": (9).to_bytes(8, "little") + b"[" * 9}, Reason.WEIGHTS_UNREADABLE),
        ({"model.gguf": b"GGUF" + b"\xff" * 100}, Reason.WEIGHTS_UNREADABLE),
    ],
)
async def test_what_is_wrong_with_the_model_is_told_as_of_a_folder(
    files: dict[str, bytes], reason: Reason, tmp_path: Path
) -> None:
    rig = Rig(tmp_path / "data")
    with refused(rig, reason):
        await import_upload(rig, tar(*(entry(f"m/{name}", content) for name, content in files.items())), "tar")


async def test_a_chat_template_that_never_ends_is_refused(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "data")
    parts = {
        "config.json": CONFIG,
        "model.safetensors": WEIGHTS,
        "tokenizer.json": TOKENIZER,
        "chat_template.jinja": ENDLESS.encode(),
    }
    with refused(rig, Reason.CHAT_TEMPLATE_REFUSED):
        await import_upload(rig, make_zip(*(Part(name.encode(), content) for name, content in parts.items())), "zip")


@pytest.mark.parametrize("name", ["tar PAX header of two GiB", "zip bomb", "zip wrong checksum", "tar symbolic link"])
async def test_a_hostile_archive_leaves_nothing(name: str, tmp_path: Path) -> None:
    rig = Rig(tmp_path / "data")
    [hostile] = [one for one in (*TARS, *ZIPS) if str(one) == name]
    with refused(rig, hostile.reason):
        await import_upload(rig, hostile.content(), hostile.extension)
