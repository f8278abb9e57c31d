"""How many rows a replica may have in its memory at once."""

from dockyard.domain.spec import EngineName

_RESERVE_SHARE = 4


def reserve_rows(batch_size: int) -> int:
    """Rows beyond a full batch that may run beside it: a quarter, for short ones that would wait too long (ADR 9)."""
    return max(1, batch_size // _RESERVE_SHARE)


def rows_on_a_cpu(engine: EngineName, batch_size: int) -> int:
    """A full batch, and the reserve of the engines that have one."""
    reserved = engine in (EngineName.CTRANSLATE2, EngineName.TRANSFORMERS)
    return batch_size + (reserve_rows(batch_size) if reserved else 0)
