"""The tokenizer of a model folder: its `tokenizer.json`, checked, or one made of what it has instead."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dockyard.errors import Failed, Reason
from dockyard.prepare.files import read_inside
from dockyard.prepare.tokenizer_file import check_tokenizer
from dockyard.prepare.tokenizer_source import SOURCES, convert_tokenizer, find_source

_LIMIT = 64 << 20
_SETTINGS = ("special_tokens_map.json", "tokenizer_config.json")  # the later one counts more


def made_tokenizer(root: Path, names: Sequence[str], config: Mapping[str, Any]) -> bytes | None:
    """The `tokenizer.json` that the folder lacks; None if it has one that can be loaded.

    Raises `Failed` (TOKENIZER_MISSING, TOKENIZER_UNREADABLE).
    """
    if "tokenizer.json" in names:
        check_tokenizer(_read(root, "tokenizer.json"))
        return None
    files = find_source(names)
    if files is None:
        known = ", ".join(" with ".join(files) for files in SOURCES)
        raise Failed(
            f"the folder has no tokenizer.json, nor what one can be made of ({known}); load the tokenizer with "
            "AutoTokenizer and save_pretrained it into the folder, which writes one",
            reason=Reason.TOKENIZER_MISSING,
        )
    settings: dict[str, Any] = {}
    for name in _SETTINGS:
        settings |= _object(root, name) if name in names else {}
    added = _object(root, "added_tokens.json") if "added_tokens.json" in names else {}
    return convert_tokenizer(files, lambda name: _read(root, name), config, settings, added)


def _read(root: Path, name: str) -> bytes:
    content = read_inside(root, name, _LIMIT)
    if content is None:
        raise Failed(
            f"{name} is larger than {_LIMIT >> 20} MiB; is it the right file?", reason=Reason.TOKENIZER_UNREADABLE
        )
    return content


def _object(root: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads(_read(root, name))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Failed(f"{name} is no JSON object; fetch the file again", reason=Reason.TOKENIZER_UNREADABLE)
    return value
