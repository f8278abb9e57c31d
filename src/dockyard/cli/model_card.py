"""A model as a person reads it: what its files tell, in words and rounded numbers."""

from collections.abc import Mapping
from typing import Any

from dockyard.cli.output import size_text

_UNITS = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k"))


def readable_model(model: Mapping[str, Any]) -> dict[str, Any]:
    """A line for each fact; facts that are not known are left out."""
    card = model.get("card") or {}
    lines = {
        "name": model["name"],
        "id": model["modelId"],
        "state": model["state"],
        "reason": model.get("reason"),
        "message": model.get("message"),
        "type": model["modelType"],
        "source": ", ".join(f"{name} {value}" for name, value in model["source"].items()),
        "base model": model.get("baseModelId"),
        "exported as": (model.get("deployConfig") or {}).get("name"),
        **(_card_lines(card) if card else {}),
        "size on disk": size_text(model["sizeBytes"]) if model.get("sizeBytes") else None,
        "imported": model["createdOn"],
    }
    return {name: value for name, value in lines.items() if value not in (None, "")}


def _card_lines(card: Mapping[str, Any]) -> dict[str, Any]:
    active = card.get("activeParameters")
    adapter = card.get("adapter")
    return {
        "architecture": f"{card['architecture']} ({card['family'].replace('_', '-')}, {card['layers']} layers)",
        "parameters": _count(card["parameters"]) + (f", {_count(active)} of them for each token" if active else ""),
        "weights": f"{size_text(card['weightsBytes'])} in {card['dtype']}" if card["weightsBytes"] else None,
        "adapter": f"rank {adapter['rank']} on {', '.join(adapter['modules'])}" if adapter else None,
        "context": _context(card),
        "tokenizer": _tokenizer(card),
        "vocabulary": f"{card['vocabSize']:,} tokens",
        "chat template": "yes" if card["chatTemplate"] else "no: /v1/completions only",
        "generation": ", ".join(f"{name} {value}" for name, value in card.get("generationDefaults", {}).items()),
        "end tokens": ", ".join(map(str, card.get("eosTokenIds", []))),
        "licence": card.get("licence") or "not told by the files",
    }


def _context(card: Mapping[str, Any]) -> str:
    length, window = card["contextLength"], card.get("slidingWindow")
    told = f"{length:,} tokens" if length else "no bound of its own"
    return f"{told}, of which some layers see the last {window:,}" if window else told


def _tokenizer(card: Mapping[str, Any]) -> str | None:
    kind, size = card.get("tokenizerKind"), card.get("tokenizerSize")
    return f"{kind}, {size:,} entries" if kind and size else kind


def _count(number: int) -> str:
    """`134.5 M`, with a space as in `8 B`."""
    for unit, letter in _UNITS:
        if number >= unit:
            return f"{number / unit:.4g} {letter}"
    return str(number)
