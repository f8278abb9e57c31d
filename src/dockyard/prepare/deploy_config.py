"""`deployconfig.json` beside a model's files: what an export says of how the model was deployed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from dockyard.domain.card import ModelCard
from dockyard.domain.export import DEPLOY_CONFIG
from dockyard.prepare.folder import read_json

_LIMIT = 1 << 16  # bytes
_DEEPEST = 4  # objects in objects; an export has two


def read_deploy_config(source: Path) -> dict[str, Any] | None:
    """The file's object. None where there is none, and for one that no export wrote: it is no part of the model."""
    if not source.is_dir() or not (source / DEPLOY_CONFIG).is_file():
        return None
    config = read_json(source.resolve(), DEPLOY_CONFIG, _LIMIT)
    return config if _is_plain(config, _DEEPEST) else None


def with_deploy_config(card: ModelCard, source: Path) -> ModelCard:
    return replace(card, deploy_config=read_deploy_config(source))


def _is_plain(value: Any, depth: int) -> bool:
    """Whether it can be kept and shown as it is: not nested without end, no NUL, no half of a surrogate pair."""
    match value:
        case dict():
            return depth > 0 and all(_is_plain(key, 0) and _is_plain(item, depth - 1) for key, item in value.items())
        case list():
            return depth > 0 and all(_is_plain(item, depth - 1) for item in value)
        case str():
            return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)
        case _:
            return True
