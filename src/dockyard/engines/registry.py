"""Engines by name. An engine's libraries are imported when it is asked for, never before."""

import importlib
from collections.abc import Callable
from typing import cast

from dockyard.engines.base import Engine
from dockyard.errors import Failed, Reason
from dockyard.protocols.generation import WorkerSpec

# Engine name → module with `create(spec) -> Engine`.
_MODULES = {
    "echo": "dockyard.engines.echo",
    "ctranslate2": "dockyard.engines.ctranslate2",
    "transformers": "dockyard.engines.transformers",
    "vllm": "dockyard.engines.vllm",
}

EngineFactory = Callable[[WorkerSpec], Engine]


def import_engine(name: str, *, shared: bool = False) -> EngineFactory:
    """Import the engine and its libraries; slow for some. Raises `Failed` (ENGINE_NOT_INSTALLED).

    `shared`: one that other replicas use, too; its libraries are in its own process.
    """
    if shared:
        from dockyard.engines.shared import SharedEngine

        return SharedEngine
    if name not in _MODULES:
        raise Failed(
            f"engine {name!r} cannot run here; the engines that can are {', '.join(sorted(_MODULES))}",
            reason=Reason.ENGINE_NOT_INSTALLED,
        )
    try:
        module = importlib.import_module(_MODULES[name])
    except ImportError as error:
        how = "dockyard engines install vllm" if name == "vllm" else f"pip install 'dockyard[{name}]'"
        raise Failed(
            f"engine {name!r} cannot be imported: {error}; install it with: {how}",
            reason=Reason.ENGINE_NOT_INSTALLED,
        ) from error
    return cast(EngineFactory, module.create)
