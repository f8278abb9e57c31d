"""Finds the replica processes of one run directory among all of the machine's, whoever started them."""

import asyncio
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from dockyard.fleets.local.process import Process
from dockyard.protocols.fleet import RunningReplica

# The kernel tells the start in ticks since the boot, and the boot in whole seconds since the epoch.
_START_TOLERANCE_S = 1.5
_KILL_TAKES_S = 10.0


@dataclass(frozen=True, slots=True)
class Worker:
    """A process whose command line says that it is a replica of this run directory."""

    found: psutil.Process
    started_at: float
    replica_id: str

    def is_same(self, known: RunningReplica) -> bool:
        """Whether this is the process that was recorded, and no later one with its pid."""
        return (
            self.replica_id == known.replica_id
            and self.found.pid == known.pid
            and abs(self.started_at - known.process_started_at) <= _START_TOLERANCE_S
        )


def find_workers(run_dir: Path) -> dict[int, Worker]:
    """By pid. One pass over /proc."""
    workers: dict[int, Worker] = {}
    for found in psutil.process_iter():
        try:
            replica_id = replica_of(found.cmdline(), run_dir)
            if replica_id is not None and found.uids().real == os.getuid():
                workers[found.pid] = Worker(found, found.create_time(), replica_id)
        except psutil.Error:
            continue  # gone meanwhile, or another user's
    return workers


def replica_of(cmdline: Sequence[str], run_dir: Path) -> str | None:
    """The replica id in a worker's command line, if it is one of `run_dir`; see `spawn` for how it is written."""
    for at in range(len(cmdline) - 5):
        names = cmdline[at : at + 6 : 2]
        if names == ["--socket-fd", "--replica-id", "--run-dir"] and cmdline[at + 5] == str(run_dir):
            return cmdline[at + 3].rstrip()  # padded where it was written later, see `worker.spare`
    return None


async def end_all(workers: Iterable[Worker]) -> None:
    """Kill them with their groups, and return once they are gone."""
    await asyncio.gather(*(_end(worker) for worker in workers))


async def _end(worker: Worker) -> None:
    try:
        process = Process(worker.found)
    except ProcessLookupError:
        return
    try:
        process.observe()
        process.kill()
        if await process.exits_within(_KILL_TAKES_S):
            process.kill()  # what joined its group in between
            await process.reap()
    finally:
        process.close()
