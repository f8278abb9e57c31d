"""The one shape of an error under /api/public."""

from pydantic import Field

from dockyard.api.wire.base import WireOut
from dockyard.errors import Reason


class ErrorOut(WireOut):
    msg: str = Field(examples=["hyperParameters.temperature must be between 0 and 2, got 3"])
    code: int = Field(description="The HTTP status.", examples=[400])
    reason: Reason = Field(examples=[Reason.OUT_OF_RANGE])
    field: str | None = Field(
        description="The path of the field in the request.", examples=["hyperParameters.temperature"]
    )


class ErrorsOut(WireOut):
    """All problems of the request, one entry each."""

    errors: tuple[ErrorOut, ...]
