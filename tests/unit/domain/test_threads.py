"""Cores are shared among replicas, and a small model on CTranslate2 keeps to one."""

import pytest

from dockyard.domain.spec import EngineName
from dockyard.domain.threads import threads_per_replica

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
