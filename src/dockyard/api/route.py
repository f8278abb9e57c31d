"""How every route handles a request: first who calls, then the body's form, then the fields, then the use case."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute

from dockyard.api.access import Access
from dockyard.api.body import read_json
from dockyard.api.wire.base import unknown_parameters
from dockyard.services.context import Context


class Route(APIRoute):
    """FastAPI reads a body before it asks for the key, and tells a broken one in its own words; so both come first."""

    @property
    def access(self) -> Access | None:
        """The scope that the route declares; None: public."""
        declared = (dependency.dependency for dependency in self.dependencies)
        return next((access for access in declared if isinstance(access, Access)), None)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()
        access = self.access
        reads_body = self.body_field is not None
        needs_body = self.body_field is not None and self.body_field.field_info.is_required()

        async def handle(request: Request) -> Response:
            if access is not None:
                request.state.caller = access.admit(request.app.state.ctx.keyring, request)
            return await handler(await read_json(request, required=needs_body) if reads_body else request)

        return handle


async def _context(request: Request) -> Context:
    return request.app.state.ctx


Ctx = Annotated[Context, Depends(_context)]


async def _unknown_parameters(request: Request) -> tuple[str, ...]:
    route: Route = request.scope["route"]
    return unknown_parameters(request.query_params, (parameter.alias for parameter in route.dependant.query_params))


# A warning for each name in the query string that the route does not read.
UnknownParameters = Annotated[tuple[str, ...], Depends(_unknown_parameters)]
