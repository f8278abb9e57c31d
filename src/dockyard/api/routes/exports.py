"""Export a model, and fetch the archive by its signed link."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from dockyard.api.access import Caller, needs
from dockyard.api.file_reply import FileReply
from dockyard.api.route import Ctx, Route, UnknownParameters
from dockyard.api.wire.exports import EXPORT_REPLIES, ExportAcceptedOut
from dockyard.api.wire.fields import QueryInteger
from dockyard.api.wire.query import DockStatusId, ModelId
from dockyard.domain.access import Scope
from dockyard.domain.spec import Bounds
from dockyard.services.exports import export_model, open_archive

router = APIRouter(route_class=Route, tags=["Export"])

_TAR: dict[str, Any] = {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}}
_DOWNLOAD: dict[int | str, dict[str, Any]] = {
    200: {"description": "The archive, a tar.", "content": _TAR},
    206: {"description": "The part of it that `Range` asks for.", "content": _TAR},
    403: {},
    416: {},
}
Expires = Annotated[
    int, QueryInteger(Bounds(0, 1 << 40)), Query(description="Until when the link is valid: Unix seconds.")
]
Signature = Annotated[str, Query(description="HMAC-SHA-256 of id and `expires`, made by the server.")]


@router.post(
    "/models/{modelId}/export",
    summary="Export a model",
    operation_id="exportModel",
    dependencies=[needs(Scope.EXPORT)],
    responses={200: EXPORT_REPLIES, 409: {}},
)
async def export(
    ctx: Ctx,
    caller: Caller,
    model_id: ModelId,
    unknown: UnknownParameters,
    name: Annotated[
        str | None,
        Query(description="The deployment whose parameters go along; without it, the one that was deployed last."),
    ] = None,
) -> ExportAcceptedOut:
    """Pack the model's files and `deployconfig.json` into a tar behind the reply: watch `dockStatusId`.

    At SUCCESS its `response` is `{"downloadUrl", "expiresOn", "sizeBytes", "sha256"}`; the link is valid for 24 hours.
    """
    return ExportAcceptedOut.of(await export_model(ctx, model_id, name, caller.key_id), unknown)


@router.head(
    "/downloads/{dockStatusId}",
    summary="Look at an archive",
    operation_id="headArchive",
    response_class=FileReply,
    responses=_DOWNLOAD,
)
@router.get(
    "/downloads/{dockStatusId}",
    summary="Fetch an archive",
    operation_id="fetchArchive",
    response_class=FileReply,
    responses=_DOWNLOAD,
)
async def download(ctx: Ctx, dock_status_id: DockStatusId, expires: Expires, signature: Signature) -> FileReply:
    """What `downloadUrl` of an export leads to. It needs no key: whoever has the link may fetch it until it expires.

    `Range` goes on where a download broke off, `If-Range` with the `ETag` only if the archive is still the same.
    """
    archive = await open_archive(ctx, dock_status_id, expires, signature)
    return FileReply(
        archive.path,
        stat_result=archive.stat,
        media_type="application/x-tar",
        filename=archive.file_name,
        headers={"etag": f'"{archive.sha256}"', "cache-control": "private", "x-content-type-options": "nosniff"},
    )
