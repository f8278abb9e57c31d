"""A fresh stage for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.control.stage import Stage, open_stage
from tests.integration.control.world import World


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with open_stage(World(tmp_path)) as opened:
        yield opened
