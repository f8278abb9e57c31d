"""How many threads a replica computes with on a CPU."""

from dockyard.domain.spec import EngineName

# CTranslate2's steps on a small model are shorter than the meetings of its threads: SmolLM2 (135 M, int8) on two cores
# made 75 tokens/s with one thread and 21 with two (ADR 8, bench/replica_threads.py). A thread needs this much to do.
CTRANSLATE2_PARAMETERS_PER_THREAD = 300_000_000


def threads_per_replica(engine: EngineName, parameters: int, cores: int, replicas: int) -> int:
    """The replicas of a version share the cores; nobody gets threads that would only wait.

    Transformers steps are long enough to share (SmolLM2, float32: 25 tokens/s with two threads, 15 with one).
    """
    share = max(1, cores // max(1, replicas))
    if engine is not EngineName.CTRANSLATE2:
        return share
    return min(share, max(1, parameters // CTRANSLATE2_PARAMETERS_PER_THREAD))
