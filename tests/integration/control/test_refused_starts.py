"""What keeps the server from starting is told in one sentence, before anything runs."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from dockyard.bootstrap import serve
from dockyard.errors import DockyardError
from dockyard.settings import Settings


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """A start sets up the logs of the whole process, which other tests look into."""
    yield
    structlog.reset_defaults()


def _refusal(data_dir: Path, **settings: object) -> str:
    with pytest.raises(DockyardError) as caught:
        serve(Settings(**{"data_dir": data_dir, "port": 0, "log_level": "error", **settings}))  # pyright: ignore[reportArgumentType]
    return caught.value.message


def test_a_data_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    assert f"{tmp_path / 'lock'} cannot be written" in _refusal(tmp_path)


@pytest.mark.parametrize("content", [b"not a key", b"\xff\xfe", b"kg-1-2"])
def test_a_file_for_the_key_that_holds_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "admin-key").write_bytes(content)
    assert _refusal(tmp_path) == (
        f"{tmp_path / 'admin-key'} holds no key; remove it, and the next start makes a new one"
    )
    assert (tmp_path / "admin-key").read_bytes() == content


def test_a_file_for_the_key_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "admin-key").mkdir()
    assert "cannot be read" in _refusal(tmp_path)


def test_a_taken_port_and_an_address_of_another_machine(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        message = _refusal(tmp_path, port=taken.getsockname()[1])
        assert message.endswith("choose another --port")
    assert _refusal(tmp_path, host="192.0.2.1").endswith("choose another --host")
