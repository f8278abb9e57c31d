"""Libraries are told that they are offline, but for the one task that fetches a model."""

import os

import huggingface_hub.constants as constants
import pytest

from dockyard.prepare import network


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "HF_DEBUG", "HF_TOKEN"):
        monkeypatch.setenv(name, "before")  # so that what is changed below is put back
        monkeypatch.delenv(name)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def test_what_converts_is_offline_and_has_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    network.prepare_environment(online=False)
    assert "HF_TOKEN" not in os.environ
    assert os.environ["HF_HUB_OFFLINE"] == os.environ["TRANSFORMERS_OFFLINE"] == "1"


def test_what_fetches_is_as_the_server_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DEBUG", "1")
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    network.prepare_environment(online=True)
    assert "HF_HUB_OFFLINE" not in os.environ
    assert "HF_DEBUG" not in os.environ
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert os.environ["HF_TOKEN"] == "hf_x"


def test_what_follows_a_download_is_offline_again() -> None:
    network.prepare_environment(online=True)
    network.leave()
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert constants.is_offline_mode()
