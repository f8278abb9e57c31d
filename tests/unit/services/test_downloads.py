"""Signed links: what opens, what does not, and the key that they are signed with."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockyard.errors import Forbidden, Invalid, Reason
from dockyard.services.downloads import Downloads, read_signing_key

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
UNTIL = NOW + timedelta(hours=1)
DOWNLOADS = Downloads(Path("/exports"), b"secret", "https://example.org/dockyard")


def signed(downloads: Downloads, job_id: str = "ds-1") -> tuple[int, str]:
    query = parse_qs(urlsplit(downloads.link(job_id, UNTIL)).query)
    return int(query["expires"][0]), query["signature"][0]


def refusal(job_id: str, expires: int, signature: str, now: datetime = NOW) -> Reason:
    with pytest.raises(Forbidden) as caught:
        DOWNLOADS.check(job_id, expires, signature, now)
    return caught.value.reason


def test_a_link_opens_until_the_second_it_expires() -> None:
    expires, signature = signed(DOWNLOADS)
    assert DOWNLOADS.link("ds-1", UNTIL).startswith("https://example.org/dockyard/api/public/downloads/ds-1?")
    assert (expires, len(signature)) == (int(UNTIL.timestamp()), 64)
    DOWNLOADS.check("ds-1", expires, signature, UNTIL - timedelta(microseconds=1))
    assert refusal("ds-1", expires, signature, UNTIL) is Reason.LINK_EXPIRED


def test_a_link_is_for_one_job_one_end_and_one_server() -> None:
    expires, signature = signed(DOWNLOADS)
    assert refusal("ds-2", expires, signature) is Reason.BAD_SIGNATURE
    assert refusal("ds-1", expires + 1, signature) is Reason.BAD_SIGNATURE
    _, foreign = signed(Downloads(Path("/exports"), b"another", ""))
    assert refusal("ds-1", expires, foreign) is Reason.BAD_SIGNATURE
    assert refusal("ds-1", 0, "x" * 64, UNTIL) is Reason.BAD_SIGNATURE  # not told whether it would have expired


@given(st.text(), st.integers(0, 1 << 40), st.text())
def test_whatever_is_made_up_is_refused(job_id: str, expires: int, signature: str) -> None:
    assert refusal(job_id, expires, signature) is Reason.BAD_SIGNATURE


def test_the_signing_key_is_made_once_and_is_private(tmp_path: Path) -> None:
    file = tmp_path / "signing-key"
    secret = read_signing_key(file)
    assert len(secret) == 32
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_signing_key(file) == secret
    assert read_signing_key(tmp_path / "another") != secret


@pytest.mark.parametrize("content", ["", "abcd", "no hex", "é"])
def test_a_key_that_is_only_half_there_is_made_anew(tmp_path: Path, content: str) -> None:
    file = tmp_path / "signing-key"
    file.write_text(content)
    (tmp_path / "signing-key.new").write_text("left by a server that was killed")
    secret = read_signing_key(file)
    assert (len(secret), read_signing_key(file)) == (32, secret)
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_key_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    file = tmp_path / "signing-key"
    file.mkdir()
    with pytest.raises(Invalid, match="can be neither read nor made: Is a directory"):
        read_signing_key(file)


def test_archives_by_job(tmp_path: Path) -> None:
    downloads = Downloads(tmp_path / "exports", b"secret", "")
    assert downloads.stored() == ()
    downloads.folder.mkdir()
    downloads.path("ds-1").touch()
    assert downloads.stored() == ("ds-1",)
    for _ in range(2):
        downloads.remove("ds-1")
    assert downloads.stored() == ()
