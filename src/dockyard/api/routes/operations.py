"""For those who run the server: is it alive, can it serve, what does it measure, what can it do. No key is needed."""

from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from dockyard.api.docs import HEADERS, page
from dockyard.api.route import Route
from dockyard.api.wire.base import WireOut
from dockyard.errors import Reason, Unavailable

router = APIRouter(route_class=Route, tags=["Operations"])


class AliveOut(WireOut):
    status: Literal["ok"] = "ok"


@router.get("/healthz", summary="Is the server alive?", operation_id="healthz")
async def healthz() -> AliveOut:
    """200 as long as the process answers."""
    return AliveOut()


@router.get("/readyz", summary="Can the server serve?", operation_id="readyz")
async def readyz(request: Request) -> AliveOut:
    """200 once the server has adopted what runs and until it shuts down, else 503."""
    if not request.app.state.ready():
        raise Unavailable("the server is starting or shutting down", reason=Reason.NOT_READY, retry_after_s=1)
    return AliveOut()


@router.get(
    "/metrics",
    summary="Metrics",
    operation_id="metrics",
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """In Prometheus' text format. Like the other operational routes it needs no key: it tells counts, not contents."""
    return Response(generate_latest(request.app.state.metrics), headers={"content-type": CONTENT_TYPE_LATEST})


@router.get("/openapi.json", summary="This document", operation_id="openapi")
async def openapi(request: Request) -> dict[str, Any]:
    """OpenAPI 3.1 of every route, the inference routes included."""
    return request.app.openapi()


@router.get("/docs", summary="This document, to read", operation_id="docs", response_class=HTMLResponse)
async def docs(request: Request) -> HTMLResponse:
    """A page without scripts; it needs nothing from the network."""
    return HTMLResponse(page(request.app.openapi()), headers=HEADERS)
