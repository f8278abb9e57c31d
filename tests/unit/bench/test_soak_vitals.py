"""Whether the soak tells a leak from caches that fill."""

from collections.abc import Callable

import pytest
from bench.soak_vitals import MEMORY_SLOPE_MIB, Vitals, flatness


def looks(memory_mib: Callable[[int], float], count: int = 14, pid: int = 1) -> list[Vitals]:
    """One after every 500 requests."""
    return [
        Vitals(
            pid=pid,
            answered=answered,
            pss_mib=0,
            uss_mib=memory_mib(answered),
            threads=9,
            fds=36,
            fds_by_kind={"tcp": 1},
            workers=4,
            workers_pss_mib=90,
            zombies=0,
            run_files=4,
        )
        for answered in range(500, 500 * count + 1, 500)
    ]


def slope_of(memory_mib: Callable[[int], float]) -> float:
    found = flatness(looks(memory_mib))
    assert found is not None
    return found.memory_slope_mib


@pytest.mark.parametrize("kept_bytes", [512, 1024, 4096])
def test_what_each_request_leaves_behind_is_a_leak(kept_bytes: int) -> None:
    slope = slope_of(lambda answered: 90 + answered * kept_bytes / 2**20)
    assert slope == pytest.approx(kept_bytes * 1000 / 2**20)
    assert slope > MEMORY_SLOPE_MIB


def test_a_leak_is_found_behind_a_cache_that_fills() -> None:
    assert slope_of(lambda answered: 90 + min(answered, 2500) * 0.002 + answered * 0.001) == pytest.approx(1.0)


def test_a_cache_that_has_filled_is_no_leak() -> None:
    assert slope_of(lambda answered: 90 + min(answered, 2500) * 0.002) == 0


def test_one_high_look_is_no_leak() -> None:
    assert slope_of(lambda answered: 97.0 if answered == 7000 else 90.0) == 0


def test_a_few_looks_tell_nothing() -> None:
    assert flatness(looks(lambda answered: 90, count=4)) is None


def test_lives_are_told_apart() -> None:
    found = flatness([*looks(lambda answered: 200, count=5, pid=1), *looks(lambda answered: 90, pid=2)])
    assert found is not None
    assert found.memory_mib == (90, 90)
