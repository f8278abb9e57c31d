"""LoRA adapters: what the card of one tells beside its base's, and the key of the two merged."""

import hashlib
from dataclasses import dataclass

# Raise this when the same base and adapter would be merged into other files than before.
MERGE_RECIPE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterCard:
    """`base_key` is the artifact that the adapter was checked against; `rank` the largest of its matrices."""

    base_key: str
    rank: int
    parameters: int  # its own
    modules: tuple[str, ...]  # the last parts of the names of what it changes: ("k_proj", "q_proj")


def merged_key(base_key: str, adapter_key: str) -> str:
    """The key of the artifact that holds the base's weights with the adapter's added."""
    parts = ("merged", base_key, adapter_key, str(MERGE_RECIPE))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
