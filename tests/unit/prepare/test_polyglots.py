"""Files of two kinds at once: refused with their reason, or imported as data that nothing runs."""

import os
from pathlib import Path

import pytest
from tests.hostile_archives import Hostile
from tests.hostile_polyglots import DISGUISED, GOOD, POLYGLOTS, Disguised
from tests.hostile_tars import entry, tar
from tests.hostile_zips import Part, make_zip
from tests.unit.prepare.test_archive import unpack, unpacked

from dockyard.errors import Failed
from dockyard.prepare.folder import look_at_folder
from dockyard.prepare.template_check import check_chat_templates


@pytest.mark.parametrize("hostile", POLYGLOTS, ids=str)
def test_an_archive_that_is_something_else_too_is_refused(hostile: Hostile, tmp_path: Path) -> None:
    with pytest.raises(Failed) as refusal:
        unpack(tmp_path, hostile.content(), hostile.extension)
    assert refusal.value.reason is hostile.reason, refusal.value.message
    assert refusal.value.message.isprintable()
    assert set(os.listdir(tmp_path)) == {"chunks", "scratch"}
    assert os.listdir(tmp_path / "scratch") == []


@pytest.mark.parametrize("extension", ["tar", "zip"])
@pytest.mark.parametrize("disguised", DISGUISED, ids=str)
def test_a_file_that_is_something_else_is_refused_or_only_data(
    disguised: Disguised, extension: str, tmp_path: Path
) -> None:
    files = GOOD | {disguised.name: disguised.content}
    if extension == "tar":
        archive = tar(*(entry(f"m/{name}", content) for name, content in files.items()))
    else:
        archive = make_zip(*(Part(f"m/{name}".encode(), content) for name, content in files.items()))
    folder = unpack(tmp_path, archive, extension)
    if disguised.reason is None:
        model = look_at_folder(folder)
        check_chat_templates(folder)
        assert set(model.files) <= files.keys() - {"pytorch_model.bin"}
    else:
        with pytest.raises(Failed) as refusal:
            look_at_folder(folder)
        assert refusal.value.reason is disguised.reason, refusal.value.message
        assert refusal.value.message.isprintable()


def test_a_tar_that_zip_tools_read_too_is_the_tar_and_nothing_of_the_zip(tmp_path: Path) -> None:
    """The zip lies at the end of the tar's last file, where such tools look for it."""
    other = make_zip(
        Part(b"config.json", b'{"architectures": ["EchoForCausalLM"]}'), Part(b"modeling.py", b"import os")
    )
    archive = tar(*(entry(name, content) for name, content in GOOD.items()), entry("notes.txt", other))
    assert unpacked(unpack(tmp_path, archive, "tar")) == {**GOOD, "notes.txt": other}


def test_a_zip_whose_comment_is_a_tar_is_the_zip(tmp_path: Path) -> None:
    parts = [Part(name.encode(), content) for name, content in GOOD.items()]
    archive = make_zip(*parts, comment=tar(entry("config.json", b"{}")))
    assert unpacked(unpack(tmp_path, archive, "zip")) == GOOD
