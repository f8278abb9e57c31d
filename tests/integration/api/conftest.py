"""A fresh API for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.api_rig import ApiRig, open_rig


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[ApiRig]:
    async with open_rig(tmp_path) as opened:
        yield opened
