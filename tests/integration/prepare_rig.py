"""Running preparation for real: a preparer over a temporary data directory, and sources to feed it."""

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil

from dockyard.prepare.runner import ProcessPreparer
from dockyard.protocols.preparation import ConvertTask, ExportTask, ImportTask, Outcome, PathSource, Progress

MODELS = Path(__file__).parents[1] / "models"
T5_DATE = MODELS / "t5-date"
GPT2_KJV = MODELS / "gpt2-kjv"

LARGE_BYTES = 1 << 30  # of zeros, sparse on the disk; only as much of it is copied as a test lets through


class Rig:
    """A preparer, and everything that it said of its progress."""

    def __init__(self, data_dir: Path) -> None:
        self.artifacts = data_dir / "artifacts"
        self.scratch = data_dir / "scratch"
        self.exports = data_dir / "exports"
        self.preparer = ProcessPreparer(self.artifacts, self.scratch)
        self.told: list[Progress] = []

    async def listen(self, progress: Progress) -> None:
        self.told.append(progress)

    async def import_model(
        self, source: Path, on_progress: Callable[[Progress], Awaitable[None]] | None = None
    ) -> Outcome:
        task = ImportTask(
            source=PathSource(path=str(source)), artifacts_dir=str(self.artifacts), scratch_dir=str(self.scratch)
        )
        return await self.preparer.run(task, on_progress or self.listen)

    async def convert(self, source_key: str, quantization: str) -> Outcome:
        task = ConvertTask(
            source_key=source_key,
            engine="ctranslate2",
            quantization=quantization,
            artifacts_dir=str(self.artifacts),
            scratch_dir=str(self.scratch),
        )
        return await self.preparer.run(task, self.listen)

    async def export(
        self, source_key: str, on_progress: Callable[[Progress], Awaitable[None]] | None = None
    ) -> tuple[Outcome, Path]:
        """The outcome, and the archive."""
        archive = self.exports / "ds-1.tar"
        task = ExportTask(
            source_key=source_key,
            folder="smol",
            deploy_config={"name": "smöl"},
            archive=str(archive),
            artifacts_dir=str(self.artifacts),
            scratch_dir=str(self.scratch),
        )
        return await self.preparer.run(task, on_progress or self.listen), archive

    @property
    def stored(self) -> set[str]:
        return set(os.listdir(self.artifacts)) if self.artifacts.exists() else set()

    @property
    def in_scratch(self) -> list[str]:
        return os.listdir(self.scratch)

    def children(self) -> list[psutil.Process]:
        """The prepare processes of this data directory that live."""
        mine = str(self.artifacts.parent)
        found: list[psutil.Process] = []
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess):  # also of one that has ended and is not reaped yet
                if mine in child.cmdline():
                    found.append(child)
        return found


def large_model(folder: Path) -> Path:
    """A model folder that takes long enough to copy to be caught in the middle."""
    shutil.copytree(GPT2_KJV, folder)
    tensor = {"dtype": "U8", "shape": [LARGE_BYTES], "data_offsets": [0, LARGE_BYTES]}
    header = json.dumps({"w": tensor}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + LARGE_BYTES)
    return folder


class Midway:
    """A listener that stops at the first bytes copied: `reached` is set, and the task waits until it is cancelled."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()

    async def __call__(self, progress: Progress) -> None:
        if progress.phase == "COPYING" and progress.share > 0:
            self.reached.set()
            await asyncio.Event().wait()
