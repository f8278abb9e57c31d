"""How many threads a replica computes with on a CPU."""

from dockyard.domain.spec import EngineName, Scaling

# CTranslate2's steps on a small model are shorter than the meetings of its threads: SmolLM2 (135 M, int8) on two cores
# made 75 tokens/s with one thread and 21 with two (ADR 8, bench/replica_threads.py). A thread needs this much to do.
CTRANSLATE2_PARAMETERS_PER_THREAD = 300_000_000


def threads_per_replica(engine: EngineName, parameters: int, cores: int, replicas: int) -> int:
    """The replicas of a version, `replicas` at most, share the cores; nobody gets threads that would only wait.

    Threads beyond the cores take away what another replica adds: SmolLM2 on Transformers beside other load made 12
    tokens/s on one replica of one thread, 22 on two of one, and 12 on two of two (ADR 8).
    """
    share = max(1, cores // max(1, replicas))
    if engine is not EngineName.CTRANSLATE2:
        return share
    return min(share, max(1, parameters // CTRANSLATE2_PARAMETERS_PER_THREAD))


def most_replicas(scaling: Scaling, host_bytes: int, need_bytes: int) -> int:
    """How many replicas of a version may come to share the host: `max_replicas`, unless its memory holds fewer.

    Without the memory, a large `max_replicas` on a small host would leave cores without a thread for ever.
    """
    return max(1, scaling.min_replicas, min(scaling.max_replicas, host_bytes // max(1, need_bytes)))
