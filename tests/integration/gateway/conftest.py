"""The rig, fresh for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from tests.integration.gateway_rig import Rig, rigged


@pytest_asyncio.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rigged(tmp_path) as made:
        yield made
