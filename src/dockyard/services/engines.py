"""Which engines this server can start replicas of."""

from dataclasses import dataclass

from dockyard.domain.spec import EngineName
from dockyard.services.context import Context
from dockyard.services.deploy_checks import how_to_install


@dataclass(frozen=True, kw_only=True)
class EngineView:
    """`message`: how to install it, where it is not; or why it does not use the host's GPUs."""

    engine: EngineName
    optimization_type: str
    installed: bool
    version: str | None
    runs_on: str
    message: str | None


def list_engines(ctx: Context) -> list[EngineView]:
    """All but `echo`, which is for tests."""
    has_gpus = any(gpu.fault is None for gpu in ctx.host().gpus)
    return [_view(ctx, engine, has_gpus) for engine in EngineName if engine is not EngineName.ECHO]


def _view(ctx: Context, engine: EngineName, has_gpus: bool) -> EngineView:
    version = ctx.preparer.version(engine)
    idle = ctx.preparer.without_gpus(engine) if version is not None and has_gpus else None
    return EngineView(
        engine=engine,
        optimization_type="" if engine is EngineName.TRANSFORMERS else str(engine),
        installed=version is not None,
        version=version,
        runs_on="cuda" if has_gpus and idle is None else "cpu",
        message=idle if version else how_to_install(engine),
    )
