"""The server's vital signs at rest: memory, descriptors by kind, processes, zombies; and whether they stay flat."""

import contextlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import median

import psutil

from bench.soak_server import SoakServer

# MiB per 1,000 requests, which is 260 bytes a request. First to last is no measure of a leak: a life begins with caches
# to fill (statements and pages of each database connection, what is told of the fifty replicas of a deployment that
# ended last), and ends at whatever point between two collections.
MEMORY_SLOPE_MIB = 0.25
_NUMBERED = re.compile(r":\[?\d+\]?")


@dataclass(frozen=True)
class Vitals:
    """One look at the server at rest. `pid` tells its lives apart."""

    pid: int
    answered: int  # requests so far
    pss_mib: float
    uss_mib: float
    threads: int
    fds: int
    fds_by_kind: dict[str, int]
    workers: int
    workers_pss_mib: float
    zombies: int
    run_files: int


def look_at(server: SoakServer, answered: int) -> Vitals:
    process = psutil.Process(server.pid)
    memory = process.memory_full_info()
    workers = server.workers()
    kinds = Counter(_kinds_of_fds(server.pid))
    return Vitals(
        pid=server.pid,
        answered=answered,
        pss_mib=memory.pss / 2**20,
        uss_mib=memory.uss / 2**20,
        threads=process.num_threads(),
        fds=sum(kinds.values()),
        fds_by_kind=dict(sorted(kinds.items())),
        workers=len(workers),
        workers_pss_mib=sum(worker.memory_full_info().pss for worker in workers) / 2**20,
        zombies=len(zombies_of(server)),
        run_files=len(list((server.data_dir / "run").iterdir())),
    )


def zombies_of(server: SoakServer) -> list[int]:
    """Ended processes below the server that nobody has waited for."""
    found: list[int] = []
    for child in psutil.Process(server.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if child.status() == psutil.STATUS_ZOMBIE:
                found.append(child.pid)
    return found


def longest_life(looks: list[Vitals]) -> list[Vitals]:
    """The looks at the server process that was looked at most."""
    pid, _ = Counter(look.pid for look in looks).most_common(1)[0]
    return [look for look in looks if look.pid == pid]


@dataclass(frozen=True)
class Flatness:
    """One life, the first look left out; of its memory the last two thirds: pools and caches fill before."""

    looks: int
    memory_looks: int
    memory_slope_mib: float  # per 1,000 requests
    memory_mib: tuple[float, float]  # lowest and highest
    fds: tuple[int, ...]
    processes: tuple[int, ...]  # replicas and spares
    moved: dict[str, tuple[int, int]]  # kinds of descriptors whose number is not always the same: lowest, highest

    @property
    def fds_are_flat(self) -> bool:
        return len(set(self.fds)) == 1


def flatness(looks: list[Vitals]) -> Flatness | None:
    """None when there are too few looks to tell."""
    life = longest_life(looks)[1:]
    steady = life[len(life) // 3 :]
    if len(steady) < 3:
        return None
    kinds = {kind for look in life for kind in look.fds_by_kind}
    counts = {kind: [look.fds_by_kind.get(kind, 0) for look in life] for kind in kinds}
    return Flatness(
        looks=len(life),
        memory_looks=len(steady),
        memory_slope_mib=slope(steady),
        memory_mib=(min(look.uss_mib for look in steady), max(look.uss_mib for look in steady)),
        fds=tuple(look.fds for look in life),
        processes=tuple(look.workers for look in life),
        moved={kind: (min(seen), max(seen)) for kind, seen in counts.items() if len(set(seen)) > 1},
    )


def slope(looks: Sequence[Vitals]) -> float:
    """MiB per 1,000 requests: the median over each two looks (Theil and Sen), which a hill or a step moves little."""
    return median(
        (later.uss_mib - sooner.uss_mib) / (later.answered - sooner.answered) * 1000
        for sooner, later in combinations(looks, 2)
        if later.answered > sooner.answered
    )


def left_behind(server: SoakServer) -> list[str]:
    """What a server that has ended must not leave: processes, sockets, half-made files."""
    found = [f"process {worker.pid}" for worker in server.workers()]
    found += [f"process {process.pid} of an engine" for process in _of_engines(server)]
    found += [f"folder {path.name}" for path in (server.data_dir / "run").glob("*.tmp")]
    found += [f"socket {path.name}" for path in (server.data_dir / "run").iterdir() if path.is_socket()]
    found += [f"scratch/{path.name}" for path in (server.data_dir / "scratch").iterdir()]
    return found


def _of_engines(server: SoakServer) -> list[psutil.Process]:
    """Processes that an engine has made: they have other names, and the temporary folder of their replica."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TMPDIR", "").startswith(str(server.data_dir)):
                found.append(process)
    return found


def _kinds_of_fds(pid: int) -> list[str]:
    """`tcp`, `unix`, `anon_inode:[pidfd]`, or a file's name, for each descriptor."""
    sockets = {f"socket:[{inode}]": kind for kind, inodes in _inodes(pid).items() for inode in inodes}
    kinds: list[str] = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            target = os.readlink(entry)
            kinds.append(sockets.get(target) or (Path(target).name if target.startswith("/") else target))
    return [_NUMBERED.sub("", kind) for kind in kinds]


def _inodes(pid: int) -> dict[str, set[str]]:
    """The sockets of its network namespace by kind."""
    columns = {"tcp": 9, "tcp6": 9, "unix": 6}
    lines = {kind: Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:] for kind in columns}
    return {kind: {line.split()[column] for line in lines[kind]} for kind, column in columns.items()}
