"""Which artifacts may go: pure decisions from the rows, what lies on the disk, and what is in use."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from dockyard.domain.model import Artifact, Model


class Cause(StrEnum):
    """Why an artifact may go."""

    UNREFERENCED = "UNREFERENCED"  # no model has it, or what it was made from
    UNUSED = "UNUSED"  # made from a model's files, and no version ran on it for long; it is made again when needed
    UNKNOWN = "UNKNOWN"  # a folder that is in no list: the server died, or a job was cancelled, at the wrong moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What needs artifacts. `named`: keys that models have; `busy`: keys that something runs on or is about to.

    `last_used`: when a version last ran on a key. `settled`: nothing is being made that has no row yet.
    """

    named: Collection[str]
    busy: Collection[str]
    last_used: Mapping[str, datetime]
    settled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Prunable:
    """An artifact that may go. `artifact` is None for a folder without a row; `models`: the names of those it is of."""

    key: str
    cause: Cause
    size_bytes: int
    artifact: Artifact | None
    last_used_at: datetime | None
    models: tuple[str, ...] = ()


def plan_prune(
    artifacts: Sequence[Artifact], stored: Mapping[str, int], usage: Usage, before: datetime
) -> list[Prunable]:
    """What may go, largest first. `stored`: key → bytes on the disk; `before`: what was used since then stays."""
    kept = made_from(usage.named, artifacts)
    found: list[Prunable] = []
    for artifact in artifacts:
        used_at = max(artifact.last_used_at, usage.last_used.get(artifact.key, artifact.last_used_at))
        if cause := _cause(artifact, used_at, kept, usage, before):
            size = stored.get(artifact.key, 0)
            found.append(
                Prunable(key=artifact.key, cause=cause, size_bytes=size, artifact=artifact, last_used_at=used_at)
            )
    known = {artifact.key for artifact in artifacts} | set(usage.named) | set(usage.busy)
    if usage.settled:
        found += [
            Prunable(key=key, cause=Cause.UNKNOWN, size_bytes=size, artifact=None, last_used_at=None)
            for key, size in stored.items()
            if key not in known
        ]
    return sorted(found, key=lambda prunable: (-prunable.size_bytes, prunable.key))


def _cause(
    artifact: Artifact, used_at: datetime, kept: Collection[str], usage: Usage, before: datetime
) -> Cause | None:
    if artifact.key in usage.busy:
        return None
    if artifact.key not in kept:
        return Cause.UNREFERENCED if usage.settled else None
    made = artifact.source_key is not None
    return Cause.UNUSED if made and used_at < before else None


def with_models(
    plan: Iterable[Prunable], models: Collection[Model], artifacts: Sequence[Artifact]
) -> tuple[Prunable, ...]:
    """The same, each with the names of the models that it was made for."""
    names: dict[str, set[str]] = {}
    for model in models:
        own = [key for key in (model.weights_key, model.apart_key) if key]
        for key in made_from(own, artifacts):
            names.setdefault(key, set()).add(model.name)
    return tuple(replace(prunable, models=tuple(sorted(names.get(prunable.key, ())))) for prunable in plan)


def named_keys(models: Iterable[Model]) -> set[str]:
    """The keys of the files that models have, and of what adapters are merged with and into."""
    named: set[str] = set()
    for model in models:
        named |= {key for key in (model.artifact_key, model.weights_key, model.apart_key) if key}
        if model.adapter is not None:
            named.add(model.adapter.base_key)
    return named


def made_from(keys: Iterable[str], artifacts: Sequence[Artifact]) -> set[str]:
    """The keys, and those of all that was made from them. What was merged counts for the model that has it alone."""
    found = set(keys)
    while more := {a.key for a in artifacts if a.source_key in found and a.engine is not None} - found:
        found |= more
    return found
