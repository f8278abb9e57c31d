"""A model in the registry."""

from dataclasses import dataclass
from datetime import datetime

from dockyard.domain.card import ModelCard
from dockyard.domain.lifecycle import ModelState
from dockyard.domain.spec import ModelType
from dockyard.errors import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """`artifact_key` names the stored files once they are there; `reason` and `message` tell why an import failed."""

    model_id: str
    name: str
    model_type: ModelType
    source: dict[str, str]  # {"path": …}
    created_at: datetime
    modified_at: datetime
    state: ModelState = ModelState.IMPORTING
    base_model_id: str | None = None
    artifact_key: str | None = None
    size_bytes: int = 0
    card: ModelCard | None = None
    reason: Reason | None = None
    message: str | None = None
    revision: int = 0  # of the row; see store


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A folder below `<data-dir>/artifacts`, complete by the time this row exists.

    `key` is the digest of what it was made from: for imported files their manifest, for converted ones the source's
    key, engine, quantization and the converter's version.
    """

    key: str
    source_key: str | None  # None: imported files
    engine: str | None
    quantization: str | None
    size_bytes: int
    created_at: datetime
    last_used_at: datetime
