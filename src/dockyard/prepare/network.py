"""The network is for the download from a hub alone: before and after it, libraries are told that they are offline."""

import os
import sys

_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
_ALWAYS = {"HF_HUB_DISABLE_TELEMETRY": "1"}
_NEVER = ("HF_DEBUG",)  # writes each request down
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def prepare_environment(*, online: bool) -> None:
    """Called before any library of Hugging Face is imported. Online, the server's own settings stand."""
    os.environ.update(_ALWAYS if online else _ALWAYS | _OFFLINE)
    for name in _NEVER if online else _NEVER + _TOKENS:
        os.environ.pop(name, None)


def leave() -> None:
    """What follows a download needs no network, and must not ask for it."""
    os.environ.update(_OFFLINE)
    for name in _TOKENS:
        os.environ.pop(name, None)
    if "huggingface_hub" in sys.modules:
        from huggingface_hub import constants
        from huggingface_hub.utils import close_session

        constants.HF_HUB_OFFLINE = True
        close_session()
