"""The machine a benchmark ran on, and what else ran there meanwhile. No names: no host, no paths."""

import os
import platform
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Machine:
    cpu: str
    cores: int
    memory_gib: float
    kernel: str

    def __str__(self) -> str:
        return f"{self.cpu}, {self.cores} cores, {self.memory_gib:.0f} GiB, Linux {self.kernel}"


@dataclass(frozen=True)
class Company:
    """Who shared the machine: cores kept busy by this program with all it started, and by everyone else."""

    seconds: float
    own_cores: float
    other_cores: float
    stolen_cores: float
    load_before: float  # load average of one minute
    load_after: float

    def __str__(self) -> str:
        return (
            f"in {self.seconds:.0f} s: {self.own_cores:.2f} cores busy with this, {self.other_cores:.2f} with anything "
            f"else, {self.stolen_cores:.2f} stolen; load average {self.load_before:.1f} → {self.load_after:.1f}"
        )


def this_machine() -> Machine:
    cores = len(os.sched_getaffinity(0))
    return Machine(_cpu_model(), cores, psutil.virtual_memory().total / 2**30, platform.release().split("-")[0])


class CompanyWatch:
    """`with CompanyWatch() as watch: …`; then `watch.company`. Counts what ended in between, if it was waited for."""

    company: Company

    def __enter__(self) -> Self:
        self._began = (time.monotonic(), _busy_s(), own_cpu_s(), os.getloadavg()[0])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        began, (busy, stolen), own, load = self._began
        seconds = time.monotonic() - began
        busy_now, stolen_now = _busy_s()
        ours = (own_cpu_s() - own) / seconds
        everyone = (busy_now - busy) / seconds
        others = max(0.0, everyone - ours)
        self.company = Company(seconds, ours, others, (stolen_now - stolen) / seconds, load, os.getloadavg()[0])


def own_cpu_s() -> float:
    """CPU time of this process and everything it started, ended or not."""
    times = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    total = sum(usage.ru_utime + usage.ru_stime for usage in times)
    for child in psutil.Process().children(recursive=True):
        total += cpu_s(child)
    return total


def cpu_s(process: psutil.Process) -> float:
    """CPU time of a process and of the children that it waited for; 0 when it is gone."""
    try:
        return sum(process.cpu_times()[:4])
    except psutil.Error:
        return 0.0


def _busy_s() -> tuple[float, float]:
    """Seconds of CPU that all processes used so far, and seconds the hypervisor took."""
    user, nice, system, _, _, irq, softirq, steal = (
        int(word) * _TICK_S for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return user + nice + system + irq + softirq, steal


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
