"""The parameters that several routes read from path and query."""

from typing import Annotated

from fastapi import Path, Query
from pydantic import AfterValidator

from dockyard.api.wire.fields import QueryInteger
from dockyard.domain.spec import Bounds

DEFAULT_LIMIT = 50


def _without_colon(model_id: str) -> str:
    """The pages write `/models/:{modelId}/deploy`; a client that copies the colon is understood."""
    return model_id.removeprefix(":")


ModelId = Annotated[
    str,
    Path(alias="modelId", description="The model's id; a stray colon before it, as the pages print it, is accepted."),
    AfterValidator(_without_colon),
]
DeploymentId = Annotated[str, Path(alias="deploymentId", description="The deployment's id.")]
DockStatusId = Annotated[str, Path(alias="dockStatusId", description="The dock status' id.")]
AppId = Annotated[str, Path(alias="appId", description="The API app's id.")]
KeyId = Annotated[str, Path(alias="keyId", description="The key's id; not the key.")]

Limit = Annotated[int, QueryInteger(Bounds(1, 200)), Query(description="How many to show at most.")]
Cursor = Annotated[str | None, Query(description="`nextCursor` of the page before; leave it out to start.")]
