"""Uploads: what is refused before a byte came, and what `complete` says is missing."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockyard.domain.spec import ModelType
from dockyard.domain.upload import (
    MAX_CHUNK_BYTES,
    FileExtension,
    UploadChunk,
    UploadSession,
    check_number,
    check_open,
    check_plan,
    check_total,
    check_whole,
    spans,
)
from dockyard.errors import Conflict, Invalid, Reason

NOW = datetime(2026, 2, 5, tzinfo=UTC)


def session(total_chunks: int = 3, file_size: int = 30, job_id: str | None = None) -> UploadSession:
    return UploadSession(
        session_id="up-1",
        model_id="cm-1",
        file_name="m.tar",
        extension=FileExtension.TAR,
        file_size=file_size,
        total_chunks=total_chunks,
        name="m",
        model_type=ModelType.OPEN_SOURCE,
        created_at=NOW,
        expires_at=NOW,
        job_id=job_id,
    )


def chunks(*sizes: int | None) -> list[UploadChunk]:
    return [
        UploadChunk(session_id="up-1", number=number, size=size, sha256="")
        for number, size in enumerate(sizes)
        if size is not None
    ]


@pytest.mark.parametrize(
    ("file_name", "extension", "file_size", "total_chunks", "field"),
    [
        ("m.zip", FileExtension.TAR, 9, 1, "fileExtension"),
        ("m.TAR", FileExtension.ZIP, 9, 1, "fileExtension"),
        ("m.tar.gz", FileExtension.TAR, 9, 1, "fileName"),
        ("m.tgz", FileExtension.TAR, 9, 1, "fileName"),
        ("m.tar", FileExtension.TAR, 9, 10, "totalChunks"),
        ("m.tar", FileExtension.TAR, MAX_CHUNK_BYTES + 1, 1, "totalChunks"),
    ],
)
def test_a_plan_that_cannot_be(
    file_name: str, extension: FileExtension, file_size: int, total_chunks: int, field: str
) -> None:
    [problem] = check_plan(file_name, extension, file_size, total_chunks)
    assert problem.field == field


def test_a_plan_that_can_be() -> None:
    assert check_plan("m.tar", FileExtension.TAR, 9, 9) == ()
    assert check_plan("model", FileExtension.ZIP, MAX_CHUNK_BYTES * 2, 2) == ()


def test_a_completed_upload_takes_no_chunk() -> None:
    check_open(session())
    with pytest.raises(Conflict, match="ds-1") as refusal:
        check_open(session(job_id="ds-1"))
    assert refusal.value.reason is Reason.UPLOAD_COMPLETED


@pytest.mark.parametrize("number", [-1, 3])
def test_a_number_beyond_the_upload(number: int) -> None:
    with pytest.raises(Invalid, match="between 0 and 2"):
        check_number(session(), number)


def test_chunks_together_are_never_more_than_the_file() -> None:
    check_total(session(), 20, 10)
    with pytest.raises(Invalid, match="empty"):
        check_total(session(), 20, 0)
    with pytest.raises(Invalid, match="31 bytes and fileSize is 30"):
        check_total(session(), 20, 11)


def test_a_whole_upload_has_every_chunk_and_every_byte() -> None:
    check_whole(session(), chunks(10, 10, 10))
    with pytest.raises(Conflict, match="1 of 3 chunks are missing: 1;") as missing:
        check_whole(session(), chunks(10, None, 10))
    assert missing.value.reason is Reason.CHUNKS_MISSING
    with pytest.raises(Conflict, match="29 bytes together and fileSize is 30") as short:
        check_whole(session(), chunks(10, 10, 9))
    assert short.value.reason is Reason.SIZE_MISMATCH


def test_missing_numbers_read_as_people_write_them() -> None:
    assert spans([]) == ""
    assert spans([0, 2, 3, 4, 9]) == "0, 2–4, 9"
    assert spans(range(0, 60, 2)) == "0, 2, 4, 6, 8, 10, 12, 14, 16, 18 and 20 more"


@given(st.sets(st.integers(0, 300)))
def test_spans_name_each_number_once(numbers: set[int]) -> None:
    told, _, rest = spans(sorted(numbers)).partition(" and ")
    named: set[int] = set()
    for part in filter(None, told.split(", ")):
        low, _, high = part.partition("–")
        named |= set(range(int(low), int(high or low) + 1))
    assert named <= numbers
    assert len(numbers - named) == int(rest.removesuffix(" more") or 0)
