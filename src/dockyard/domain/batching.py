"""How many rows a replica may have in its memory at once, which go together, and how long one waits for a place."""

from dockyard.domain.spec import EngineName

_RESERVE_SHARE = 4
# A row that has waited so many times as long as it would take itself, at the pace of those that run, goes to the
# reserve. Rows of one length get in before that, so they are not torn apart.
PATIENCE = 2.0
FIRST_PACE_S = 0.05  # taken for a step as long as there was none
# A prompt may be longer than the shortest that it is read with by so many tokens, or by a quarter (bench/batching.py).
_SURPLUS = 32


def alike(shortest: int, longest: int) -> bool:
    """Whether prompts of these lengths, and all between, are worth reading together."""
    return longest - shortest <= max(_SURPLUS, shortest // 4)


def reserve_rows(batch_size: int) -> int:
    """Rows beyond a full batch that may run beside it: a quarter, for short ones that would wait too long (ADR 9)."""
    return max(1, batch_size // _RESERVE_SHARE)


def rows_on_a_cpu(engine: EngineName, batch_size: int) -> int:
    """A full batch, and the reserve of the engines that have one."""
    reserved = engine in (EngineName.CTRANSLATE2, EngineName.TRANSFORMERS)
    return batch_size + (reserve_rows(batch_size) if reserved else 0)
