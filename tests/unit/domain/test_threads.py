"""Cores are shared among replicas, and a small model on CTranslate2 keeps to one."""

import pytest

from dockyard.domain.spec import EngineName, Scaling
from dockyard.domain.threads import most_replicas, threads_per_replica

BILLION = 1_000_000_000


@pytest.mark.parametrize(
    ("engine", "parameters", "cores", "replicas", "threads"),
    [
        (EngineName.CTRANSLATE2, 135_000_000, 2, 1, 1),
        (EngineName.CTRANSLATE2, 7 * BILLION, 16, 1, 16),
        (EngineName.CTRANSLATE2, 7 * BILLION, 64, 1, 23),
        (EngineName.TRANSFORMERS, 135_000_000, 2, 1, 2),
        (EngineName.TRANSFORMERS, 135_000_000, 8, 3, 2),
        (EngineName.TRANSFORMERS, 7 * BILLION, 2, 10, 1),
    ],
)
def test_threads(engine: EngineName, parameters: int, cores: int, replicas: int, threads: int) -> None:
    assert threads_per_replica(engine, parameters, cores, replicas) == threads


@pytest.mark.parametrize(
    ("least", "most", "host_bytes", "need_bytes", "replicas"),
    [
        (1, 2, 24 * BILLION, BILLION, 2),
        (1, 50, 24 * BILLION, 10 * BILLION, 2),
        (3, 50, 24 * BILLION, 10 * BILLION, 3),
        (1, 2, 24 * BILLION, 100 * BILLION, 1),
        (1, 2, 24 * BILLION, 0, 2),
    ],
)
def test_as_many_replicas_share_as_there_may_be_and_memory_holds(
    least: int, most: int, host_bytes: int, need_bytes: int, replicas: int
) -> None:
    scaling = Scaling(min_replicas=least, max_replicas=most)

    assert most_replicas(scaling, host_bytes, need_bytes) == replicas
