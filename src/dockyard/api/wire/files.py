"""Uploads in chunks: the bodies and replies of the three published calls, and of the two of ours."""

import re
from typing import Annotated, Any

from pydantic import Field

from dockyard.api.wire.base import Moment, Warnings, WireIn, WireOut
from dockyard.api.wire.fields import Flag, Integer, OneOf, Text
from dockyard.api.wire.models import TITLE_PATTERN, Title
from dockyard.domain.spec import Bounds, ModelType
from dockyard.domain.upload import CHUNKS, FILE_SIZE, FileContext, FileExtension, UploadChunk, UploadSession
from dockyard.services.uploads import UploadWish

_FILE_NAME_PATTERN = r"^[^\x00-\x1f\x7f/\\]+$"
_FILE_NAME_RULE = "must be a file's name without its folder"
_SHA256_PATTERN = r"^[0-9a-fA-F]{64}$"
_SHA256_RULE = "must be a SHA-256 as 64 hexadecimal digits"
_UNTITLED = "model"
_LONGEST_NAME = 128

Sha256 = Annotated[str, Text(Bounds(64, 64), _SHA256_PATTERN, _SHA256_RULE)]


class UploadStartIn(WireIn):
    """An archive that is about to come in chunks."""

    file_context: Annotated[FileContext, OneOf(FileContext)] = Field(description="What the file is.")
    total_chunks: Annotated[int, Integer(CHUNKS)] = Field(description="How many chunks will come.")
    file_extension: Annotated[FileExtension, OneOf(FileExtension)] = Field(description="The kind of archive.")
    file_name: Annotated[str, Text(Bounds(1, 255), _FILE_NAME_PATTERN, _FILE_NAME_RULE)] = Field(
        description="The archive's name, such as `gpt2.tar`."
    )
    file_size: Annotated[int, Integer(FILE_SIZE)] = Field(description="Bytes of all chunks together.")
    is_adapter: Annotated[bool, Flag()] | None = Field(
        default=None,
        description="Whether the archive holds a LoRA adapter; what it holds is compared. Default: what it holds.",
    )
    name: Title | None = Field(default=None, description="What people call the model. Default: from `fileName`.")
    model_type: Annotated[ModelType, OneOf(ModelType)] | None = Field(
        default=None, description="Default: `fineTune` for an adapter or with a `baseModelId`, else `openSource`."
    )
    base_model_id: Annotated[str, Text(Bounds(1, 64))] | None = Field(
        default=None, description="The model that this one was fine-tuned from."
    )

    def wish(self) -> UploadWish:
        tuned = self.is_adapter is True or self.base_model_id is not None
        return UploadWish(
            file_name=self.file_name,
            extension=self.file_extension,
            file_size=self.file_size,
            total_chunks=self.total_chunks,
            name=self.name or _title(self.file_name, self.file_extension),
            model_type=self.model_type or (ModelType.FINE_TUNE if tuned else ModelType.OPEN_SOURCE),
            base_model_id=self.base_model_id,
            is_adapter=self.is_adapter,
        )


class UploadStartedOut(WireOut):
    """Where the chunks go. The model is listed once the upload is complete."""

    session_id: str
    expiration_date: Moment = Field(description="When the upload is removed; every chunk puts it off.")
    model_id: str
    warnings: Warnings = ()


class ChunkOut(WireOut):
    """The chunk lies on the server's disk."""

    chunk_number: str = Field(description="As text, as the pages print it.", examples=["0"])
    session_id: str
    warnings: Warnings = ()


class UploadOut(WireOut):
    """How far an upload is."""

    session_id: str
    model_id: str
    file_name: str
    file_extension: FileExtension
    file_size: int
    total_chunks: int
    received_bytes: int
    received_chunks: tuple[int, ...] = Field(description="The numbers of the chunks that are there, in order.")
    expiration_date: Moment
    dock_status_id: str | None = Field(description="The import, once the upload was completed.")

    @classmethod
    def of(cls, session: UploadSession, chunks: list[UploadChunk]) -> "UploadOut":
        return cls(
            session_id=session.session_id,
            model_id=session.model_id,
            file_name=session.file_name,
            file_extension=session.extension,
            file_size=session.file_size,
            total_chunks=session.total_chunks,
            received_bytes=sum(chunk.size for chunk in chunks),
            received_chunks=tuple(chunk.number for chunk in chunks),
            expiration_date=session.expires_at,
            dock_status_id=session.job_id,
        )


class UploadCompleteIn(WireIn):
    """May be left out."""

    file_sha256: Sha256 | None = Field(
        default=None, alias="fileSha256", description="Of the whole archive; it is compared before it is unpacked."
    )


class UploadCancelledOut(WireOut):
    session_id: str
    deleted: bool = True


DIGEST_HEADER = "x-chunk-sha256"
CHUNK_BODY: dict[str, Any] = {
    "parameters": [
        {
            "name": DIGEST_HEADER,
            "in": "header",
            "required": False,
            "description": "The same as the field `sha256`.",
            "schema": {"type": "string", "pattern": _SHA256_PATTERN},
        }
    ],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "chunkNumber"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "The chunk's bytes."},
                        "chunkNumber": {"type": "string", "pattern": "^[0-9]{1,6}$", "description": "From 0."},
                        "sha256": {
                            "type": "string",
                            "pattern": _SHA256_PATTERN,
                            "description": "Of the chunk; one that differs is refused.",
                        },
                    },
                }
            }
        },
    },
}

START_EXAMPLES: dict[str, Any] = {
    "tar": {
        "summary": "A tar in two chunks",
        "value": {
            "fileContext": "model",
            "totalChunks": 2,
            "fileExtension": "tar",
            "fileName": "gpt2.tar",
            "fileSize": 104857600,
        },
    }
}


def _title(file_name: str, extension: FileExtension) -> str:
    stem = file_name[: -len(extension) - 1] if file_name.lower().endswith(f".{extension}") else file_name
    stem = stem.strip()[:_LONGEST_NAME].strip()
    return stem if re.fullmatch(TITLE_PATTERN.removesuffix("$"), stem) else _UNTITLED
