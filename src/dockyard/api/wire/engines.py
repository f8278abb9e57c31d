"""The engines, and which of them are installed."""

from pydantic import Field

from dockyard.api.wire.base import Listing, WireOut
from dockyard.domain.spec import EngineName


class EngineOut(WireOut):
    engine: EngineName
    optimization_type: str = Field(description="How a deploy asks for it.")
    installed: bool
    version: str | None
    runs_on: str = Field(description="What its replicas run on here: cuda or cpu.")
    message: str | None = Field(description="How to install it, or why it cannot use the host's GPUs.")


class EnginesOut(Listing):
    engines: tuple[EngineOut, ...]
