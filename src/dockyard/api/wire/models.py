"""Models: the body of an import, and a model as it reads."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from dockyard.api.wire.base import Listing, Moment, Warnings, WireIn, WireOut, some
from dockyard.api.wire.fields import OneOf, Text, refused
from dockyard.domain.adapter import AdapterCard
from dockyard.domain.card import Family, ModelCard
from dockyard.domain.lifecycle import ModelState
from dockyard.domain.model import Model
from dockyard.domain.spec import Bounds, ModelType
from dockyard.errors import Reason
from dockyard.services.models import HubRepository, ImportWish, ServerPath

TITLE_PATTERN = r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?$"
TITLE_RULE = "must be one line that neither begins nor ends with a space"

# Two dots in a row are in no name of the hub, and lead out of a folder. "org" and "repo" have at most 96 characters.
REPOSITORY_PATTERN = r"^(?!.*(\.\.|--))[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9_][A-Za-z0-9._-]{0,95}$"
REPOSITORY_RULE = "must be org/repo, as the hub names it: letters, digits, '-', '_' and '.', at most 96 each"
REVISION_PATTERN = r"^(?!.*(\.\.|//))[A-Za-z0-9]([A-Za-z0-9._/+@-]*[A-Za-z0-9_+-])?$"
REVISION_RULE = "must be a branch, a tag or a commit: letters, digits and ._/+@-, no '..'"
FILE_PATTERN = r"^(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9._ +()-]*\.gguf$"
FILE_RULE = "must be the name of a .gguf file at the top of the repository"

Title = Annotated[str, Text(Bounds(1, 128), TITLE_PATTERN, TITLE_RULE)]


class SourceIn(WireIn):
    """Where the model comes from: `path` or `huggingFace`."""

    path: Annotated[str, Text(Bounds(1, 4096))] | None = Field(
        default=None, description="A model folder or a GGUF file on the server, as an absolute path."
    )
    hugging_face: Annotated[str, Text(Bounds(3, 193), REPOSITORY_PATTERN, REPOSITORY_RULE)] | None = Field(
        default=None,
        description="`org/repo` on the Hugging Face hub, or the one that the server's `HF_ENDPOINT` names. What a "
        "token opens is opened by the server's own, `HF_TOKEN`.",
    )
    revision: Annotated[str, Text(Bounds(1, 256), REVISION_PATTERN, REVISION_RULE)] | None = Field(
        default=None,
        description="Of `huggingFace`: a branch, a tag or a commit. Without it the default branch. The commit that it "
        "stands for is written down with the model.",
    )
    file: Annotated[str, Text(Bounds(6, 256), FILE_PATTERN, FILE_RULE)] | None = Field(
        default=None, description="Of `huggingFace`: the GGUF file to import, where the repository has several."
    )

    @model_validator(mode="after")
    def _one_place(self) -> "SourceIn":
        if self.path is None and self.hugging_face is None:
            raise refused(Reason.MISSING_FIELD, "needs path, a folder or file on the server, or huggingFace, org/repo")
        if self.path is not None and self.hugging_face is not None:
            raise refused(Reason.BAD_FORMAT, "takes either path or huggingFace, not both")
        if self.path is not None and (self.revision is not None or self.file is not None):
            given = "revision" if self.revision is not None else "file"
            raise refused(Reason.BAD_FORMAT, f"takes {given} with huggingFace only, not with path")
        return self

    def place(self) -> ServerPath | HubRepository:
        if self.hugging_face is None:
            return ServerPath(path=self.path or "")
        return HubRepository(name=self.hugging_face, revision=self.revision, file=self.file)


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
            source=self.source.place(),
            base_model_id=self.base_model_id,
            warnings=warnings,
        )


class AdapterOut(WireOut):
    """A LoRA adapter's own part; what stands beside it is that of base and adapter merged."""

    rank: int = Field(description="The largest of its matrices.")
    parameters: int = Field(description="Its own.")
    modules: tuple[str, ...] = Field(description="What it changes, by the last parts of the names.")

    @classmethod
    def of(cls, adapter: AdapterCard) -> "AdapterOut":
        return cls(rank=adapter.rank, parameters=adapter.parameters, modules=adapter.modules)


class CardOut(WireOut):
    """What the model's files tell of it; no weight was loaded."""

    architecture: str
    family: Family
    parameters: int = Field(description="Tied weights count once.")
    active_parameters: int | None = Field(description="Those that a token passes, of a mixture of experts; else null.")
    weights_bytes: int
    dtype: str = Field(description="Of the stored weights.")
    context_length: int | None = Field(description="In tokens; null where the architecture has no bound.")
    sliding_window: int | None = Field(description="Tokens that some layers, or all, look back; else null.")
    vocab_size: int
    layers: int
    tokenizer_kind: str | None = Field(description="`BPE`, `Unigram`, `WordPiece` …, as tokenizer.json says.")
    tokenizer_size: int | None = Field(description="Its entries, the added ones included.")
    chat_template: bool
    generation_defaults: dict[str, Any] = Field(description="Of generation_config.json. A deploy's own values count.")
    eos_token_ids: tuple[int, ...] = Field(description="Tokens that end a text.")
    licence: str | None
    adapter: AdapterOut | None = Field(description="null for whole weights.")

    @classmethod
    def of(cls, card: ModelCard) -> "CardOut":
        told = {name: getattr(card, name) for name in cls.model_fields if name not in ("sliding_window", "adapter")}
        window = card.dimensions.window if card.dimensions and card.dimensions.window_layers else None
        return cls(**told, sliding_window=window, adapter=some(card.adapter, AdapterOut.of))


class ModelOut(WireOut):
    model_id: str
    name: str
    model_type: ModelType
    state: ModelState
    source: dict[str, str] = Field(
        description="Where it came from, as the import named it; of `huggingFace` also the `commit`."
    )
    base_model_id: str | None
    size_bytes: int
    card: CardOut | None = Field(description="null until the files were looked at.")
    deploy_config: dict[str, Any] | None = Field(
        description="`deployconfig.json` of the export that the model was imported from: the body to deploy it with."
    )
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
            deploy_config=model.card.deploy_config if model.card else None,
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
    },
    "hub": {
        "summary": "A repository of the Hugging Face hub",
        "value": {
            "name": "SmolLM2-135M-Instruct",
            "modelType": "openSource",
            "source": {"huggingFace": "HuggingFaceTB/SmolLM2-135M-Instruct", "revision": "main"},
        },
    },
}
