"""The reply to a prune."""

from pydantic import Field

from dockyard.api.wire.base import Moment, Warnings, WireOut
from dockyard.domain.pruning import Cause, Prunable
from dockyard.services.pruning import Pruning


class PrunedOut(WireOut):
    """One artifact that is not needed. `engine` and `quantization` are null for files that no converter made."""

    artifact_key: str
    cause: Cause
    size_bytes: int
    engine: str | None
    quantization: str | None
    models: tuple[str, ...] = Field(
        description="The names of the models that it was made for; empty where none is left."
    )
    last_used_on: Moment | None = Field(description="null for files that the server has no record of.")

    @classmethod
    def of(cls, prunable: Prunable) -> "PrunedOut":
        artifact = prunable.artifact
        return cls(
            artifact_key=prunable.key,
            cause=prunable.cause,
            size_bytes=prunable.size_bytes,
            engine=artifact.engine if artifact else None,
            quantization=artifact.quantization if artifact else None,
            models=prunable.models,
            last_used_on=prunable.last_used_at,
        )


class PruneOut(WireOut):
    dry_run: bool = Field(description="Whether nothing was removed.")
    freed_bytes: int
    artifacts: tuple[PrunedOut, ...] = Field(description="What was removed, or would be, the largest first.")
    warnings: Warnings = ()

    @classmethod
    def of(cls, pruning: Pruning, *, dry_run: bool, warnings: tuple[str, ...]) -> "PruneOut":
        return cls(
            dry_run=dry_run,
            freed_bytes=pruning.freed_bytes,
            artifacts=tuple(PrunedOut.of(prunable) for prunable in pruning.pruned),
            warnings=warnings,
        )
