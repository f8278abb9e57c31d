"""The facts of the machine are plausible wherever the tests run."""

import os

from dockyard.fleets.local.host import host_now


def test_the_host_is_what_this_process_may_use() -> None:
    host = host_now()

    assert 1 <= host.cores <= len(os.sched_getaffinity(0))
    assert 0 < host.available_bytes <= host.memory_bytes
    assert host.gpus == ()
