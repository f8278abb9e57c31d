"""Who may call a route: the key in the header, its scopes, and the declaration that each route carries."""

from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader

from dockyard.domain.access import Scope
from dockyard.errors import Forbidden, Reason, Unauthenticated
from dockyard.protocols.routing import Keyring, Principal

HEADER = APIKeyHeader(
    name="x-api-key",
    scheme_name="x-api-key",
    description="A key `kg-<uuid>-<uuid>` of an API app; what it may do are the scopes of its app.",
    auto_error=False,
)


class Access:
    """A route's declaration of the scope it needs; `scope` None: any key of an API app.

    `route.Route` calls `admit` before it reads anything else of the request. As a dependency it only puts the scheme
    into the OpenAPI document.
    """

    def __init__(self, scope: Scope | None) -> None:
        self.scope = scope

    async def __call__(self, _key: Annotated[str | None, Security(HEADER)]) -> None:
        return None

    def admit(self, keyring: Keyring, request: Request) -> Principal:
        """Whose key the request carries. Raises `Unauthenticated`, or `Forbidden` if it lacks the scope."""
        key = request.headers.get("x-api-key", "").strip()
        if not key:
            raise Unauthenticated("a key is needed: send it as the header x-api-key", reason=Reason.NO_KEY)
        principal = keyring.find(key)
        if principal is None:
            raise Unauthenticated("the key is unknown or was revoked", reason=Reason.UNKNOWN_KEY)
        if principal.deployment_id is not None:
            raise Forbidden("an inference key serves /v1 and /v2 only; use a key of an API app here")
        if self.scope is not None and self.scope not in principal.scopes:
            raise Forbidden(f"the key's app lacks the scope {self.scope.value!r}")
        return principal


def needs(scope: Scope | None) -> Any:
    """What stands in a route's `dependencies`."""
    return Depends(Access(scope))


async def _caller(request: Request) -> Principal:
    return request.state.caller


Caller = Annotated[Principal, Depends(_caller)]
