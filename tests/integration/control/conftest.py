"""A fresh stage for each test."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.integration.control.stage import Stage, open_stage

from dockyard.fleets.fake import FakeMachine
from dockyard.store.database import Store


@dataclass
class World:
    """What outlives a server."""

    machine: FakeMachine = field(default_factory=FakeMachine)
    artifacts: set[str] = field(default_factory=set[str])


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with open_stage(World(), Store(f"sqlite+aiosqlite:///{tmp_path / 'd.db'}")) as opened:
        yield opened
