"""One server for the tests that only read or deploy beside each other; the others start their own.

Their data directories hold the test models already, imported and converted as the product does it.
"""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.acceptance.server import MODELS, Server
from tests.once import made_once

from dockyard.prepare.runner import ProcessPreparer
from dockyard.protocols.preparation import ConvertTask, ImportTask, PathSource, Progress


@pytest.fixture(scope="module")
def server(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(_furnished(tmp_path_factory.mktemp("data"), prepared)) as running:
        yield running


@pytest.fixture
def own_data_dir(prepared: Path, bare_data_dir: Path) -> Path:
    return _furnished(bare_data_dir, prepared)


@pytest.fixture
def bare_data_dir(tmp_path: Path) -> Path:
    """For the tests that are about importing and converting."""
    return tmp_path / "data"


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `artifacts` with both test models and what CTranslate2 loads of them at full precision."""
    return made_once(tmp_path_factory, "prepared", lambda folder: asyncio.run(_prepare(folder)))


def _furnished(data_dir: Path, prepared: Path) -> Path:
    data_dir.mkdir(mode=0o700, exist_ok=True)
    shutil.copytree(prepared / "artifacts", data_dir / "artifacts")
    return data_dir


async def _prepare(folder: Path) -> None:
    preparer = ProcessPreparer(folder / "artifacts", folder / "scratch")

    async def ignore(_: Progress) -> None: ...

    for name in ("t5-date", "gpt2-kjv"):
        imported = await preparer.run(
            ImportTask(source=PathSource(path=str(MODELS / name)), artifacts_dir="", scratch_dir=""), ignore
        )
        await preparer.run(
            ConvertTask(
                source_key=imported.key,
                engine="ctranslate2",
                quantization="no_quantization",
                artifacts_dir="",
                scratch_dir="",
            ),
            ignore,
        )
