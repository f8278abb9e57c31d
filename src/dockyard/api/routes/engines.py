"""The engines."""

from fastapi import APIRouter

from dockyard.api.access import needs
from dockyard.api.route import Ctx, Route
from dockyard.api.wire.engines import EngineOut, EnginesOut
from dockyard.domain.access import Scope
from dockyard.services.engines import list_engines

router = APIRouter(route_class=Route, tags=["Devices"])


@router.get("/engines", summary="List engines", operation_id="listEngines", dependencies=[needs(Scope.VIEW)])
async def index(ctx: Ctx) -> EnginesOut:
    """All of them on one page: installed or not, which version, and what it would run on."""
    engines = tuple(EngineOut(**vars(engine)) for engine in list_engines(ctx))
    return EnginesOut(engines=engines, total=len(engines))
