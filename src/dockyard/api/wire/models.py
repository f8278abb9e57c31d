"""Models: the body of an import, and a model as it reads."""

from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from dockyard.api.wire.base import Listing, Moment, Warnings, WireIn, WireOut, some
from dockyard.api.wire.fields import OneOf, Text, refused
from dockyard.domain.card import Family, ModelCard
from dockyard.domain.lifecycle import ModelState
from dockyard.domain.model import Model
from dockyard.domain.spec import Bounds, ModelType
from dockyard.errors import Reason
from dockyard.services.models import ImportWish

TITLE_PATTERN = r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?$"
TITLE_RULE = "must be one line that neither begins nor ends with a space"

Title = Annotated[str, Text(Bounds(1, 128), TITLE_PATTERN, TITLE_RULE)]


class SourceIn(WireIn):
    """Where the model comes from."""

    path: Annotated[str, Text(Bounds(1, 4096))] | None = Field(
        default=None, description="A model folder or a GGUF file on the server, as an absolute path."
    )
    hugging_face: Annotated[str, Text(Bounds(1, 256))] | None = Field(
        default=None, description="`org/repo` on the Hugging Face hub. Read, and refused in this release."
    )
    revision: Annotated[str, Text(Bounds(1, 256))] | None = Field(
        default=None, description="Of `huggingFace`: a branch, a tag or a commit."
    )

    @field_validator("hugging_face", mode="after")
    @classmethod
    def _not_yet(cls, value: str | None) -> str | None:
        raise refused(
            Reason.SOURCE_NOT_SUPPORTED,
            "is not in this release; download the model on the server and import its folder with source.path",
        )

    @model_validator(mode="after")
    def _somewhere(self) -> "SourceIn":
        if self.path is None:
            raise refused(Reason.MISSING_FIELD, "needs path, the model's folder or GGUF file on the server")
        return self


class ImportIn(WireIn):
    """A model to bring in."""

    name: Title = Field(description="What people call the model.")
    model_type: Annotated[ModelType, OneOf(ModelType)] = Field(description="Deploys must name the same type.")
    source: SourceIn
    base_model_id: Annotated[str, Text(Bounds(1, 64))] | None = Field(
        default=None, description="The model that this one was fine-tuned from."
    )

    def wish(self, warnings: tuple[str, ...]) -> ImportWish:
        return ImportWish(
            name=self.name,
            model_type=self.model_type,
            path=self.source.path or "",
            base_model_id=self.base_model_id,
            warnings=warnings,
        )


class CardOut(WireOut):
    """What the model's files tell of it."""

    architecture: str
    family: Family
    parameters: int
    weights_bytes: int
    dtype: str
    context_length: int | None
    vocab_size: int
    layers: int
    chat_template: bool
    licence: str | None

    @classmethod
    def of(cls, card: ModelCard) -> "CardOut":
        return cls(**{name: getattr(card, name) for name in cls.model_fields})


class ModelOut(WireOut):
    model_id: str
    name: str
    model_type: ModelType
    state: ModelState
    source: dict[str, str] = Field(description="Where it came from, as the import named it.")
    base_model_id: str | None
    size_bytes: int
    card: CardOut | None = Field(description="null until the files were looked at.")
    reason: Reason | None = Field(description="Why the import failed.")
    message: str | None
    created_on: Moment
    l_mod: Moment

    @classmethod
    def of(cls, model: Model) -> "ModelOut":
        return cls(
            model_id=model.model_id,
            name=model.name,
            model_type=model.model_type,
            state=model.state,
            source=_as_named(model.source),
            base_model_id=model.base_model_id,
            size_bytes=model.size_bytes,
            card=some(model.card, CardOut.of),
            reason=model.reason,
            message=model.message,
            created_on=model.created_at,
            l_mod=model.modified_at,
        )


def _as_named(source: dict[str, str]) -> dict[str, str]:
    """Without where the server's own links led: `path` as the client wrote it."""
    told = {name: value for name, value in source.items() if name != "given"}
    return {**told, "path": source["given"]} if "given" in source else told


class ModelsOut(Listing):
    models: tuple[ModelOut, ...]


class ModelDeletedOut(WireOut):
    model_id: str
    deleted: bool = True
    freed_bytes: int = Field(description="Files that another model shares stay and do not count.")
    warnings: Warnings = ()


IMPORT_EXAMPLES: dict[str, Any] = {
    "folder": {
        "summary": "A model folder on the server",
        "value": {
            "name": "SmolLM2-135M-Instruct",
            "modelType": "openSource",
            "source": {"path": "/srv/models/SmolLM2-135M-Instruct"},
        },
    }
}
