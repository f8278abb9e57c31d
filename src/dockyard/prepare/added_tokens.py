"""Tokens that a fine-tune added to its base's vocabulary: `added_tokens.json`, or `tokenizer_config.json`."""

from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken, Tokenizer

_FLAGS = ("lstrip", "rstrip", "single_word")  # what such a token takes with it of the spaces around it


def add_tokens(tokenizer: Tokenizer, added: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """`added` is added_tokens.json, name → id; `settings` tokenizer_config.json.

    Raises ValueError where an id is taken, or would leave a hole.
    """
    for name, (token_id, token) in sorted(_listed(added, settings).items(), key=lambda item: item[1][0]):
        if tokenizer.token_to_id(name) not in (token_id, None):
            raise ValueError(f"the added token {name[:50]!r} is in the vocabulary under another id than {token_id}")
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
        if tokenizer.token_to_id(name) != token_id:
            raise ValueError(f"the added token {name[:50]!r} has the id {token_id}, and not all before it are there")


def _listed(added: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, tuple[int, AddedToken]]:
    """Name → id and token; special ones are left out of what is read."""
    named = [settings.get(key) for key in settings if key.endswith("_token")]
    named += settings.get("additional_special_tokens") or ()
    special = {value.get("content") if isinstance(value, Mapping) else value for value in named}
    entries: dict[str, tuple[int, Mapping[str, Any]]] = {
        name: (value, {}) for name, value in added.items() if type(value) is int
    }
    table = settings.get("added_tokens_decoder")
    for key, entry in table.items() if isinstance(table, Mapping) else ():
        if isinstance(entry, Mapping) and isinstance(entry.get("content"), str) and str(key).isdigit():
            entries[entry["content"]] = (int(key), entry)
    return {
        name: (
            token_id,
            AddedToken(
                name,
                normalized=False,
                special=bool(entry.get("special")) or name in special,
                **{flag: bool(entry.get(flag)) for flag in _FLAGS},
            ),
        )
        for name, (token_id, entry) in entries.items()
    }
