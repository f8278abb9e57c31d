"""Which engines this server can start replicas of."""

from dataclasses import dataclass

from dockyard.domain.spec import EngineName
from dockyard.services.context import Context
from dockyard.services.deploy_checks import how_to_install


@dataclass(frozen=True, kw_only=True)
class EngineView:
    """`message`: how to install it, where it is not."""

    engine: EngineName
    optimization_type: str
    installed: bool
    version: str | None
    runs_on: str
    message: str | None


def list_engines(ctx: Context) -> list[EngineView]:
    """All but `echo`, which is for tests."""
    on = "cuda" if ctx.host().gpus else "cpu"
    return [_view(ctx, engine, on) for engine in EngineName if engine is not EngineName.ECHO]


def _view(ctx: Context, engine: EngineName, on: str) -> EngineView:
    version = ctx.preparer.version(engine)
    return EngineView(
        engine=engine,
        optimization_type="" if engine is EngineName.TRANSFORMERS else str(engine),
        installed=version is not None,
        version=version,
        runs_on=on,
        message=None if version else how_to_install(engine),
    )
