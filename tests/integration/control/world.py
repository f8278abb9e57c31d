"""What a server leaves when it dies, and a store that tells when to look."""

import contextlib
import itertools
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from dockyard.fleets.fake import FakeMachine
from dockyard.fleets.fake_gpus import FakeGpus
from dockyard.fleets.local.gpus import GpuPatience
from dockyard.store.database import Store
from dockyard.store.transaction import Transaction

Watch = Callable[[bool], None]


class WatchedStore(Store):
    """Calls `watch` right before each commit, and right after it with True."""

    def __init__(self, url: str, watch: Watch) -> None:
        super().__init__(url)
        self.commits = 0
        self._watch = watch

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        async with super().transaction() as tx:
            yield tx
            self._watch(False)
        self.commits += 1
        self._watch(True)


@dataclass
class World:
    """What outlives a server: the database and the exports in `folder`, the processes, the finished artifacts."""

    folder: Path
    machine: FakeMachine = field(default_factory=FakeMachine)
    artifacts: set[str] = field(default_factory=set[str])
    gpus: FakeGpus = field(default_factory=FakeGpus)
    gpu_patience: GpuPatience = field(default_factory=GpuPatience)

    @property
    def database(self) -> Path:
        return self.folder / "d.db"

    @property
    def exports(self) -> Path:
        return self.folder / "exports"

    @property
    def effects(self) -> tuple[set[str], set[str]]:
        """What is done and lies outside of the database."""
        return set(self.machine.running), set(self.artifacts)

    def copy(self, folder: Path) -> "World":
        """The world as it is now, in a new `folder`: what a server finds that starts after the death of this one."""
        folder.mkdir()
        with (
            contextlib.closing(sqlite3.connect(self.database)) as now,
            contextlib.closing(sqlite3.connect(folder / self.database.name)) as then,
        ):
            now.backup(then)
        if self.exports.exists():
            shutil.copytree(self.exports, folder / self.exports.name)
        written = {replica_id: list(lines) for replica_id, lines in self.machine.written.items()}
        machine = FakeMachine(dict(self.machine.running), written, itertools.count(5001))
        return World(folder, machine, set(self.artifacts))
