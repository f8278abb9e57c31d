"""Fetching from the hub double in the test's own process, without the waits of a real download."""

import io
from pathlib import Path
from typing import Any

import huggingface_hub.constants as constants
import pytest
from huggingface_hub.utils import close_session
from tests.integration.hub_double import HubDouble

from dockyard.prepare.hub import fetch_repository
from dockyard.prepare.hub_client import Patience
from dockyard.prepare.reporting import Reporter, decode_line
from dockyard.protocols.preparation import HubSource, Progress

QUICK = Patience(waits_s=(0.001, 0.001, 0.001), midway_s=(), longest_s=5)


class HubRig:
    """`fetch` runs the download that the prepare process runs; `told` is what it said of its progress."""

    def __init__(self, hub: HubDouble, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.hub = hub
        self.folder = folder
        self.told: list[Progress] = []
        self._patch = patch
        close_session()
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.delenv("HF_TOKEN", raising=False)
        patch.setattr(constants, "HF_TOKEN_PATH", str(folder.parent / "no-token"))
        patch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        self.reach(hub.endpoint)

    def reach(self, endpoint: str) -> None:
        self._patch.setattr(constants, "ENDPOINT", endpoint)
        template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        self._patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    def log_in(self, token: str) -> None:
        self._patch.setenv("HF_TOKEN", token)

    def time_out_after(self, seconds: float) -> None:
        self._patch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", seconds)
        self._patch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", seconds)

    def fetch(self, repository: str = "org/kjv", revision: str | None = None, **more: Any) -> tuple[Path, str]:
        """What `fetch_repository` made, and the commit."""
        patience = more.pop("patience", QUICK)
        source = HubSource(repository=repository, revision=revision, folder=str(self.folder), **more)
        out = io.BytesIO()
        try:
            model, found = fetch_repository(source, Reporter(out), 0.9, 0.5, patience)
        finally:
            lines = [decode_line.decode(line) for line in out.getvalue().splitlines()]
            self.told += [line.progress for line in lines if line.progress]
        return model, found["commit"]
