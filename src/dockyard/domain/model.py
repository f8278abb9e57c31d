"""A model in the registry."""

from dataclasses import dataclass
from datetime import datetime

from dockyard.domain.adapter import AdapterCard, apart_key, merged_key
from dockyard.domain.card import ModelCard
from dockyard.domain.compatibility import takes_adapters
from dockyard.domain.lifecycle import ModelState
from dockyard.domain.spec import EngineName, ModelType
from dockyard.errors import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """`artifact_key` names the stored files once they are there; `reason` and `message` tell why an import failed."""

    model_id: str
    name: str
    model_type: ModelType
    source: dict[str, str]  # {"path": …}, or {"huggingFace": "org/name", …}, with what was found, such as "commit"
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

    @property
    def adapter(self) -> AdapterCard | None:
        """What is known of it as an adapter; None for a model with whole weights, or one not looked at yet."""
        return self.card.adapter if self.card else None

    @property
    def weights_key(self) -> str | None:
        """The artifact that engines load or are converted from: the model's own; for an adapter, base and it merged."""
        if self.adapter is None or self.artifact_key is None:
            return self.artifact_key
        return merged_key(self.adapter.base_key, self.artifact_key)

    @property
    def apart_key(self) -> str | None:
        """The artifact that vLLM adds to the base's weights as it computes; None where there is no such adapter."""
        if self.card is None or self.adapter is None or self.artifact_key is None or not takes_adapters(self.card):
            return None
        return apart_key(self.adapter.base_key, self.artifact_key)

    def weights_for(self, engine: EngineName) -> str | None:
        """The artifact that `engine` loads or is converted from."""
        return (self.apart_key if engine is EngineName.VLLM else None) or self.weights_key


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
