"""Where sockets lie: short names, short paths, private folders."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from dockyard.errors import Failed
from dockyard.fleets.local.folder import RunFolder, temporary_folder

ID = "rp-0f1e2d3c-0000-4000-8000-000000000000"
UUID_LONG = "x" * 36


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.ensure()
    return folder


def test_a_socket_is_named_by_the_first_digits_of_the_id(folder: RunFolder) -> None:
    assert folder.socket_path(ID, taken=()) == str(folder.path / "0f1e2d3c.sock")


def test_ids_that_begin_alike_get_different_sockets(folder: RunFolder) -> None:
    first = folder.socket_path(ID, taken=())

    second = folder.socket_path(ID.replace("8000", "9000"), taken={first})

    assert second != first


def test_a_stale_socket_makes_room(folder: RunFolder) -> None:
    stale = folder.path / "0f1e2d3c.sock"
    stale.touch()

    assert folder.socket_path(ID, taken=()) == str(stale)
    assert not stale.exists()


def test_sockets_in_use_are_kept(folder: RunFolder) -> None:
    used, stale = folder.path / "a.sock", folder.path / "b.sock"
    used.touch()
    stale.touch()

    folder.remove_sockets_except([str(used)])

    assert list(folder.path.iterdir()) == [used]


def test_every_path_fits_a_socket(tmp_path: Path) -> None:
    for length in range(60, 110):
        base = Path("/x" + "y" * (length - 2))
        path = RunFolder(base).socket_path(ID, taken=())
        assert len(os.fsencode(path)) <= 107


def test_every_name_of_an_engine_fits_in_the_temporary_folder() -> None:
    for length in range(30, 110):
        socket = RunFolder(Path("/x" + "y" * (length - 2))).socket_path(ID, taken=())
        assert len(os.fsencode(temporary_folder(socket) / UUID_LONG)) <= 107


def test_temporary_folders_go_with_their_sockets(folder: RunFolder) -> None:
    kept, gone = (str(folder.sockets / f"{name}.sock") for name in ("kept", "gone"))
    for socket in (kept, gone):
        (folder.make_temporary(socket) / "file").touch()
    folder.remove_sockets_except([kept])
    assert [(temporary_folder(socket) / "file").exists() for socket in (kept, gone)] == [True, False]
    shutil.rmtree(temporary_folder(kept))
    folder.leave()


def test_a_folder_that_others_may_read_is_closed(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o755)

    RunFolder(run_dir).ensure()

    assert stat.S_IMODE(run_dir.stat().st_mode) == 0o700


def test_a_link_in_the_place_of_the_socket_folder_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / ("deep" * 30))
    folder.sockets = tmp_path / "planted"
    folder.sockets.symlink_to(tmp_path)

    with pytest.raises(Failed, match="not a folder of this user"):
        folder.ensure()


def test_a_file_in_the_place_of_the_run_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "run").touch()

    with pytest.raises(Failed, match="choose another data directory"):
        RunFolder(tmp_path / "run").ensure()


def test_no_id_leads_out_of_the_folder(folder: RunFolder) -> None:
    assert folder.log_path("../../etc/passwd").parent == folder.path
