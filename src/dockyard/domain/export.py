"""What an export holds beside the model's files: `deployconfig.json`, spelled as a deploy's body, and its own name."""

import re
from datetime import timedelta
from typing import Any

from dockyard.domain.model import Model
from dockyard.domain.spec import NAME_LENGTH, SCALE_DOWN_DELAY, SCALE_UP_DELAY, Bounds, DeploySpec

DEPLOY_CONFIG = "deployconfig.json"
KEPT_FOR = timedelta(hours=24)  # an archive, from the end of its job on; its link is valid as long

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def file_stem(model_name: str) -> str:
    """A model's name as that of a file or folder on every system: `Flan T5 (date)` becomes `Flan-T5-date`."""
    return _UNSAFE.sub("-", model_name).strip("-._")[: NAME_LENGTH.high].rstrip("-._") or "model"


def deploy_config(
    model: Model, deployment_name: str | None, spec: DeploySpec | None, delay_unit_ms: int
) -> dict[str, Any]:
    """The body that would deploy the model as it was deployed; without `spec` what it was imported with, if that was
    an export, else the name and the model's type alone.

    `delay_unit_ms`: how many ms one unit of the scaling delays is on this server.
    """
    if spec is None and model.card is not None and model.card.deploy_config:
        return model.card.deploy_config
    return {
        "name": deployment_name or file_stem(model.name),
        "modelType": str(model.model_type),
        **({} if spec is None else _parameters(spec, delay_unit_ms)),
    }


def with_base(config: dict[str, Any], adapter: Model, base: Model | None) -> dict[str, Any]:
    """The same for an adapter: its base named by the digest of its files, which is the same on every server."""
    if adapter.adapter is None:
        return config
    named = {"artifactKey": adapter.adapter.base_key, **({"name": base.name} if base else {})}
    return {**config, "baseModel": named}


def _parameters(spec: DeploySpec, delay_unit_ms: int) -> dict[str, Any]:
    hyper, scaling = spec.hyper, spec.scaling
    return {
        "hyperParameters": {
            "temperature": hyper.temperature,
            "maxTokens": hyper.max_tokens,
            "topP": hyper.top_p,
            "topK": hyper.top_k,
            "stopSequence": list(hyper.stop),
        },
        "scalingParameters": {
            "maxBatchSize": scaling.max_batch_size,
            "minReplicas": scaling.min_replicas,
            "maxReplicas": scaling.max_replicas,
            "scaleUpDelay": _delay(scaling.scale_up_delay_ms, delay_unit_ms, SCALE_UP_DELAY),
            "scaleDownDelay": _delay(scaling.scale_down_delay_ms, delay_unit_ms, SCALE_DOWN_DELAY),
        },
        "deviceType": spec.device_type,
        "optimizationInfo": {
            "optimizationType": str(spec.optimization or ""),
            "quantizationType": str(spec.quantization),
        },
    }


def _delay(delay_ms: int, unit_ms: int, bounds: Bounds) -> int:
    """In the server's unit, inside the bounds of a body: the unit may have been another one at the deploy."""
    return min(bounds.high, max(bounds.low, round(delay_ms / unit_ms)))
