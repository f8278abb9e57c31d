"""Import in chunks: start an upload, send its chunks, complete it; look at one, remove one."""

import re
from typing import Annotated

from fastapi import APIRouter, Body, Path, Request

from dockyard.api.access import Caller, needs
from dockyard.api.chunk_form import FILE, ChunkForm, read_chunk_form
from dockyard.api.route import Ctx, Route
from dockyard.api.wire.base import unknown_fields, unknown_parameters
from dockyard.api.wire.deploy import AcceptedOut
from dockyard.api.wire.fields import shown
from dockyard.api.wire.files import (
    CHUNK_BODY,
    DIGEST_HEADER,
    START_EXAMPLES,
    ChunkOut,
    UploadCancelledOut,
    UploadCompleteIn,
    UploadOut,
    UploadStartedOut,
    UploadStartIn,
)
from dockyard.domain.access import Scope
from dockyard.domain.upload import MAX_CHUNK_BYTES
from dockyard.errors import Invalid, Problem, Reason
from dockyard.services.uploads import (
    cancel_upload,
    complete_upload,
    get_upload,
    keep_chunk,
    receiving,
    start_upload,
)

router = APIRouter(route_class=Route, tags=["Import in chunks"])

SessionId = Annotated[str, Path(alias="sessionId", description="`sessionId` of the start's reply.")]

_NUMBER, _SHA256 = "chunkNumber", "sha256"
_NUMBER_FORM = re.compile(r"[0-9]{1,9}", re.ASCII)
_SHA256_FORM = re.compile(r"[0-9a-fA-F]{64}")


@router.post(
    "/files/session/start",
    summary="Start an upload",
    operation_id="startUpload",
    dependencies=[needs(Scope.IMPORT)],
    responses={404: {}, 429: {}},
)
async def start(ctx: Ctx, body: Annotated[UploadStartIn, Body(openapi_examples=START_EXAMPLES)]) -> UploadStartedOut:
    """Announce an archive with a model in it: a tar or a zip, cut into chunks anywhere, each of at most 1 GiB."""
    session = await start_upload(ctx, body.wish())
    return UploadStartedOut(
        session_id=session.session_id,
        expiration_date=session.expires_at,
        model_id=session.model_id,
        warnings=unknown_fields(body),
    )


@router.post(
    "/files/session/{sessionId}",
    summary="Send a chunk",
    operation_id="sendChunk",
    dependencies=[needs(Scope.IMPORT)],
    openapi_extra=CHUNK_BODY,
    responses={400: {}, 409: {}},
)
async def chunk(ctx: Ctx, request: Request, session_id: SessionId) -> ChunkOut:
    """Chunks may come in any order, several at once, and again: the last one of a number counts.

    A reply of 200 means that the chunk is on the disk, and survives a restart of the server.
    """
    async with receiving(ctx, session_id) as (session, incoming):
        form = await read_chunk_form(request, incoming, min(MAX_CHUNK_BYTES, session.file_size))
        number, sha256 = _fields(form, request)
        kept = await keep_chunk(ctx, session, number, incoming, sha256)
    warnings = unknown_parameters(form.fields, (FILE, _NUMBER, _SHA256))
    return ChunkOut(
        chunk_number=str(kept.number),
        session_id=kept.session_id,
        warnings=tuple(warning.replace("parameter", "field", 1) for warning in warnings),
    )


@router.post(
    "/files/session/{sessionId}/complete",
    summary="Complete an upload",
    operation_id="completeUpload",
    dependencies=[needs(Scope.IMPORT)],
    responses={409: {}},
)
async def complete(
    ctx: Ctx, caller: Caller, session_id: SessionId, body: UploadCompleteIn | None = None
) -> AcceptedOut:
    """Import the archive behind the reply: watch `dockStatusId`. Called again, it replies with the same job.

    409 names the chunks that are missing. What is refused in the archive is the reason of the job.
    """
    warnings = unknown_fields(body) if body else ()
    job = await complete_upload(ctx, session_id, body.file_sha256 if body else None, warnings, caller.key_id)
    return AcceptedOut.of(job)


@router.get(
    "/files/session/{sessionId}",
    summary="Look at an upload",
    operation_id="getUpload",
    dependencies=[needs(Scope.IMPORT)],
)
async def show(ctx: Ctx, session_id: SessionId) -> UploadOut:
    """Which chunks are there, to go on with an upload that broke off."""
    return UploadOut.of(*await get_upload(ctx, session_id))


@router.delete(
    "/files/session/{sessionId}",
    summary="Remove an upload",
    operation_id="cancelUpload",
    dependencies=[needs(Scope.IMPORT)],
    responses={409: {}},
)
async def cancel(ctx: Ctx, session_id: SessionId) -> UploadCancelledOut:
    """Remove an upload that will not be completed, with its chunks, before it expires."""
    await cancel_upload(ctx, session_id)
    return UploadCancelledOut(session_id=session_id)


def _fields(form: ChunkForm, request: Request) -> tuple[int, str | None]:
    """The chunk's number, and its digest, which may also be a header. Raises `Invalid` with all that is wrong."""
    problems: list[Problem] = []
    number, sha256 = form.fields.get(_NUMBER), form.fields.get(_SHA256) or request.headers.get(DIGEST_HEADER)
    if number is None:
        problems.append(Problem(f"{_NUMBER} is required", Reason.MISSING_FIELD, _NUMBER))
    elif not _NUMBER_FORM.fullmatch(number):
        told = f"{_NUMBER} must be a whole number from 0, got {shown(number)}"
        problems.append(Problem(told, Reason.WRONG_TYPE, _NUMBER))
    if sha256 is not None and not _SHA256_FORM.fullmatch(sha256):
        told = f"{_SHA256} must be a SHA-256 as 64 hexadecimal digits, got {shown(sha256)}"
        problems.append(Problem(told, Reason.BAD_FORMAT, _SHA256))
    if problems or number is None:
        raise Invalid(problems=tuple(problems))
    return int(number), sha256
