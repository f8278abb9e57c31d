"""The machine's cores and memory, as far as this process may use them."""

import os

import psutil

from dockyard.domain.devices import Host
from dockyard.fleets.local import cgroup


def host_now() -> Host:
    """What there is and what is free now; the limits of the control group (a container's) count.

    Of GPUs the fleet knows more, which gives them out: see `LocalFleet.host`.
    """
    memory = psutil.virtual_memory()
    bound = cgroup.memory_bound()
    return Host(
        cores=_cores(),
        memory_bytes=min(memory.total, bound.limit_bytes) if bound else memory.total,
        available_bytes=min(memory.available, bound.available_bytes) if bound else memory.available,
    )


def _cores() -> int:
    """Cores this process may run on. A quota of 1.5 counts as one core: threads beyond it would only be throttled."""
    cores = len(os.sched_getaffinity(0))
    quota = cgroup.cpu_quota()
    return cores if quota is None else max(1, min(cores, int(quota)))
