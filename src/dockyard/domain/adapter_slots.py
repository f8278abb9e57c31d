"""What vLLM keeps, and computes with, to add adapters to the weights of a base: pure arithmetic on its own allocations.

It sets slots aside when it starts, each as large as the largest adapter that may come: for every matrix between the
vectors of layers, a pair of the rank that it was started with. Of an adapter that is in use there is also a copy as
it was read. (`vllm/lora/layers`, `vllm/lora/ops/torch_ops`; version 0.32.)
"""

from typing import Final

from dockyard.domain.card import Dimensions
from dockyard.domain.compatibility import VLLM_RANKS

VLLM_SLOTS: Final = 4  # adapters that one batch may be computed with; a row of another one waits
# On a CPU it copies an adapter's matrix for each token that it computes at once: so it computes few at once.
VLLM_TOKENS_AT_ONCE: Final = 256
_COPIED_BYTES = 4  # an element of such a copy


def rank_of_slot(rank: int) -> int:
    """Of an engine that takes an adapter of `rank`, which is at most the last of `VLLM_RANKS`."""
    return next(room for room in VLLM_RANKS if room >= rank)


def bytes_of_slots(shape: Dimensions, layers: int, rank: int, size: int, gpus: int = 1) -> int:
    """On all of `gpus` together, in elements of `size` bytes. Queries, keys, values, and the two inner products are
    counted with a pair each.

    Of a product whose outputs the GPUs share, each has the whole first matrix; where they share the inputs, the whole
    second one.
    """
    queries, keys = shape.heads * shape.head_width, max(shape.kv_heads, gpus) * shape.head_width
    shared = 2 * queries + 2 * keys + 3 * shape.inner
    whole = 5 * shape.width + 2 * shape.width
    return VLLM_SLOTS * layers * rank_of_slot(rank) * (shared + gpus * whole) * size


def bytes_of_copies(shape: Dimensions, rank: int) -> int:
    """On a CPU, in the product that needs most: of as many tokens as are computed at once."""
    widest = max(shape.inner, shape.width, shape.heads * shape.head_width)
    return VLLM_TOKENS_AT_ONCE * rank_of_slot(rank) * widest * _COPIED_BYTES
