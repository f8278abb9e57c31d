"""LoRA adapters: what the card of one tells beside its base's, and the keys of the two merged, or kept apart."""

import hashlib
from dataclasses import dataclass

# Raise this when the same base and adapter would be merged into other files than before.
MERGE_RECIPE = 1
APART_RECIPE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterCard:
    """`base_key` is the artifact that the adapter was checked against; `rank` the largest of its matrices."""

    base_key: str
    rank: int
    parameters: int  # its own
    modules: tuple[str, ...]  # the last parts of the names of what it changes: ("k_proj", "q_proj")
    # One rank and one scale for all that it changes, and that only matrices between its base's layers' vectors: an
    # engine that adds adapters while it computes can take it. False, too, on cards of an earlier release.
    plain: bool = False


def merged_key(base_key: str, adapter_key: str) -> str:
    """The key of the artifact that holds the base's weights with the adapter's added."""
    return _key("merged", base_key, adapter_key, MERGE_RECIPE)


def apart_key(base_key: str, adapter_key: str) -> str:
    """The key of the artifact that holds the adapter's weights and what describes the two together, for an engine that
    adds them while it computes.
    """
    return _key("apart", base_key, adapter_key, APART_RECIPE)


def _key(kind: str, base_key: str, adapter_key: str, recipe: int) -> str:
    return hashlib.sha256("\0".join((kind, base_key, adapter_key, str(recipe))).encode()).hexdigest()
