"""The memory of this process: one heap for all threads, what stays set aside, what is free given back."""

import ctypes
import gc
from collections.abc import Callable

_M_ARENA_MAX = -8  # mallopt(3)
_YOUNG_OBJECTS = 10_000  # made and not freed again, after which the youngest are looked through


def use_one_heap() -> None:
    """Have all threads share the C library's first heap. To be called before the first thread starts.

    Each thread would get one of its own, and keep there what it has ever needed. Those here mostly wait for Python's
    lock anyway: after 2,500 requests with seven heaps 2.8 of 34 MiB were free and kept, with one 0.5 of 31.
    """
    if mallopt := _of_the_c_library("mallopt"):
        mallopt(_M_ARENA_MAX, 1)


def set_aside() -> None:
    """What is there now stays: a full collection that walks it stopped every request for 94 ms.

    Until here none was of use: what is imported stays, and looking at it again and again was up to a tenth of a start.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 10, 10)
    gc.enable()


def collect() -> None:
    """Free the cycles that grew old: 3 ms, since what was set aside is not looked at; before that, nothing.

    By the thresholds that happens after a million objects, which are days of a quiet server and 30,000 requests.
    """
    if gc.get_freeze_count():
        gc.collect()


def give_back_freed() -> None:
    """Give freed memory back to the system, wherever it lies; glibc would keep it. 0.2 ms for a server at rest.

    Of a replica that has loaded SmolLM2 on CTranslate2 that is 50 to 110 of some 300 MiB, in 5 ms.
    """
    if trim := _of_the_c_library("malloc_trim"):
        trim(0)


def _of_the_c_library(name: str) -> Callable[..., int] | None:
    """Other C libraries than glibc do not have these calls."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
