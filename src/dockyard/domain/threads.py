"""How many threads a replica computes with on a CPU."""

from dockyard.domain.spec import EngineName

# CTranslate2's steps are so short that threads wait for each other longer than they help: SmolLM2 (135 M, int8) on two
# cores made 73 tokens/s with one thread and 20-57 with two, a batch of ten 253 and 80-201. A thread needs this much.
# Measure again: bench/replica_threads.py
CTRANSLATE2_PARAMETERS_PER_THREAD = 300_000_000


def threads_per_replica(engine: EngineName, parameters: int, cores: int, replicas: int) -> int:
    """The replicas of a version share the cores; nobody gets threads that would only wait.

    Transformers steps are long enough to share (SmolLM2, float32: 27 tokens/s with two threads, 17 with one).
    """
    share = max(1, cores // max(1, replicas))
    if engine is not EngineName.CTRANSLATE2:
        return share
    return min(share, max(1, parameters // CTRANSLATE2_PARAMETERS_PER_THREAD))
