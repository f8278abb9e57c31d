"""An upload: an archive that comes in numbered chunks, in any order and again, until it is completed or expires."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dockyard.domain.spec import Bounds, ModelType
from dockyard.errors import Conflict, Invalid, Problem, Reason, TooMany

MAX_CHUNK_BYTES = 1 << 30
CHUNKS = Bounds(1, 100_000)  # how many
FILE_SIZE = Bounds(1, 1 << 43)  # bytes: 8 TiB
MOST_OPEN = 100  # uploads that a server keeps at once; each may hold as many bytes as its archive
_NAMED = 10  # missing chunks that a message lists before it only counts


class FileContext(StrEnum):
    MODEL = "model"


class FileExtension(StrEnum):
    TAR = "tar"
    ZIP = "zip"


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadSession:
    """What `start` was told. The model gets its row when the upload is complete; until then only its id is known.

    `job_id` is the import that `complete` began: from then on no chunk is taken. `is_adapter` and `is_whole`: what the
    client said that the archive holds; neither, if it said nothing.
    """

    session_id: str
    model_id: str
    file_name: str
    extension: FileExtension
    file_size: int
    total_chunks: int
    name: str
    model_type: ModelType
    created_at: datetime
    expires_at: datetime
    base_model_id: str | None = None
    is_adapter: bool = False
    is_whole: bool = False
    job_id: str | None = None
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadChunk:
    """A chunk that lies whole on the disk."""

    session_id: str
    number: int
    size: int
    sha256: str


def check_plan(file_name: str, extension: FileExtension, file_size: int, total_chunks: int) -> tuple[Problem, ...]:
    """What is wrong with an upload before its first byte."""
    problems: list[Problem] = []
    lower = file_name.lower()
    other = FileExtension.ZIP if extension is FileExtension.TAR else FileExtension.TAR
    if lower.endswith((".gz", ".tgz", ".bz2", ".xz", ".zst")):
        told = "fileName is that of a compressed tar; send the tar as it was before it was compressed, or a zip"
        problems.append(Problem(told, Reason.ARCHIVE_KIND_MISMATCH, "fileName"))
    elif lower.endswith(f".{other}"):
        told = f"fileExtension is {extension} and fileName ends with .{other}; name the kind that the file is"
        problems.append(Problem(told, Reason.ARCHIVE_KIND_MISMATCH, "fileExtension"))
    if total_chunks > file_size:
        told = f"totalChunks is {total_chunks} for {file_size} bytes; each chunk has at least one byte"
        problems.append(Problem(told, Reason.OUT_OF_RANGE, "totalChunks"))
    if file_size > total_chunks * MAX_CHUNK_BYTES:
        least = -(-file_size // MAX_CHUNK_BYTES)
        told = f"a chunk has at most {MAX_CHUNK_BYTES} bytes, so {file_size} bytes need at least {least} chunks"
        problems.append(Problem(told, Reason.OUT_OF_RANGE, "totalChunks"))
    return tuple(problems)


def check_few(open_count: int, next_expiry: datetime | None, now: datetime) -> None:
    """Raise `TooMany` (TOO_MANY_UPLOADS) where as many uploads as a server keeps are open already."""
    if open_count < MOST_OPEN:
        return
    wait_s = max(1.0, (next_expiry - now).total_seconds()) if next_expiry else 60.0
    raise TooMany(
        f"{open_count} uploads are open on this server, as many as it keeps; complete one, or remove one that nobody "
        f"goes on with (DELETE /api/public/files/session/{{sessionId}}); the next expires in {wait_s / 60:.0f} minutes",
        reason=Reason.TOO_MANY_UPLOADS,
        retry_after_s=wait_s,
    )


def check_open(session: UploadSession) -> None:
    """Raise `Conflict` (UPLOAD_COMPLETED) for an upload that takes no more chunks."""
    if session.job_id is not None:
        raise Conflict(
            f"upload {session.session_id} was completed and takes no more chunks; its import is {session.job_id}",
            reason=Reason.UPLOAD_COMPLETED,
        )


def check_number(session: UploadSession, number: int) -> None:
    """Raise `Invalid` (OUT_OF_RANGE) for a number that the upload does not have."""
    if not 0 <= number < session.total_chunks:
        raise Invalid(
            f"chunkNumber must be between 0 and {session.total_chunks - 1}, got {number}",
            reason=Reason.OUT_OF_RANGE,
            field="chunkNumber",
        )


def check_total(session: UploadSession, others_bytes: int, size: int) -> None:
    """Raise `Invalid` (SIZE_MISMATCH) for an empty chunk, or one that with the others is more than the file has."""
    if size == 0:
        raise Invalid("the chunk is empty; send its bytes in file", reason=Reason.SIZE_MISMATCH, field="file")
    total = size + others_bytes
    if total > session.file_size:
        raise Invalid(
            f"with this chunk the upload has {total} bytes and fileSize is {session.file_size}; "
            "check fileSize, and that no chunk was sent under two numbers",
            reason=Reason.SIZE_MISMATCH,
            field="file",
        )


def check_whole(session: UploadSession, chunks: Collection[UploadChunk]) -> None:
    """Raise `Conflict`, naming what is missing (CHUNKS_MISSING), or that the bytes are too few (SIZE_MISMATCH)."""
    there = {chunk.number for chunk in chunks}
    missing = [number for number in range(session.total_chunks) if number not in there]
    if missing:
        raise Conflict(
            f"{len(missing)} of {session.total_chunks} chunks are missing: {spans(missing)}; send them, then complete "
            "the upload again",
            reason=Reason.CHUNKS_MISSING,
        )
    total = sum(chunk.size for chunk in chunks)
    if total != session.file_size:
        raise Conflict(
            f"the chunks have {total} bytes together and fileSize is {session.file_size}; send the chunk that is too "
            "short again, or start a new upload with the right fileSize",
            reason=Reason.SIZE_MISMATCH,
        )


def spans(numbers: Iterable[int]) -> str:
    """Sorted numbers as people write them: `0, 3–7, 9`; the rest is counted after ten."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number, number])
    told = [str(low) if low == high else f"{low}–{high}" for low, high in runs[:_NAMED]]
    rest = sum(high - low + 1 for low, high in runs[_NAMED:])
    return ", ".join(told) + (f" and {rest} more" if rest else "")
