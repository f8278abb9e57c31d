"""The API's ASGI app: `/api/public` and the operational routes. `/v1` and `/v2` are the gateway's."""

from collections.abc import Callable, Iterator
from typing import Any

from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from dockyard import __version__
from dockyard.api.observe import Observed
from dockyard.api.openapi import build_document
from dockyard.api.problems import install_handlers
from dockyard.api.route import Route
from dockyard.api.routes import (
    access,
    deployments,
    deploys,
    devices,
    dock_status,
    engines,
    exports,
    files,
    models,
    operations,
)
from dockyard.api.wire.errors import ErrorsOut
from dockyard.gateway.openapi import openapi_fragment
from dockyard.services.context import Context

BASE = "/api/public"
ROUTERS: tuple[tuple[str, APIRouter], ...] = (
    (BASE, deploys.router),
    (BASE, dock_status.router),
    (BASE, models.router),
    (BASE, files.router),
    (BASE, exports.router),
    (BASE, deployments.router),
    (BASE, access.router),
    (BASE, devices.router),
    (BASE, engines.router),
    ("", operations.router),
)


class Api(FastAPI):
    """FastAPI, each request to it observed, with the gateway's routes in its document."""

    observed: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.observed(scope, receive, send)

    async def serve_itself(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = build_document(self, endpoints(), openapi_fragment())
        return self.openapi_schema


def build_app(ctx: Context, *, ready: Callable[[], bool], metrics: CollectorRegistry) -> FastAPI:
    """The app. `ready()`: whether /readyz says so."""
    app = _with_routes()
    app.observed = Observed(app.serve_itself, ctx.clock)
    app.state.ctx = ctx
    app.state.ready = ready
    app.state.metrics = metrics
    install_handlers(app, _methods_at())
    return app


def describe() -> dict[str, Any]:
    """The OpenAPI document, for whom no server runs."""
    return _with_routes().openapi()


def endpoints() -> Iterator[tuple[str, Route]]:
    """Every route with its whole path."""
    for prefix, router in ROUTERS:
        for route in router.routes:
            assert isinstance(route, Route)
            yield prefix + route.path, route


def _with_routes() -> Api:
    app = Api(
        title="Dockyard",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses={500: {"model": ErrorsOut}},
    )
    for prefix, router in ROUTERS:
        app.include_router(router, prefix=prefix)
    return app


def _methods_at() -> Callable[[str], list[str]]:
    """A function that tells which methods a path knows, for the `Allow` of a 405; one without parameters goes first."""
    routes = [(path, compile_path(path)[0], route.methods or set()) for path, route in endpoints()]
    plain = {path for path, _, _ in routes if "{" not in path}

    def methods_at(path: str) -> list[str]:
        fits = [methods for known, form, methods in routes if (known == path if path in plain else form.match(path))]
        return sorted({method for methods in fits for method in methods})

    return methods_at
