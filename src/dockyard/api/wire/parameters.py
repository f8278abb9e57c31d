"""The parameters of a version as every read-out shows them: resolved, each duration with its unit."""

from typing import Literal

from pydantic import Field

from dockyard.api.wire.base import WireOut
from dockyard.domain.spec import DeploySpec, HyperParameters, Quantization, Scaling


class HyperParametersOut(WireOut):
    temperature: float
    max_tokens: int
    top_p: float
    top_k: int
    stop_sequence: tuple[str, ...]

    @classmethod
    def of(cls, hyper: HyperParameters) -> "HyperParametersOut":
        return cls(
            temperature=hyper.temperature,
            max_tokens=hyper.max_tokens,
            top_p=hyper.top_p,
            top_k=hyper.top_k,
            stop_sequence=hyper.stop,
        )


class ScalingOut(WireOut):
    """The delays are always shown in milliseconds, whatever unit the server reads them in, and say so."""

    max_batch_size: int
    min_replicas: int
    max_replicas: int
    scale_up_delay: int
    scale_up_delay_unit: Literal["ms"] = "ms"
    scale_down_delay: int
    scale_down_delay_unit: Literal["ms"] = "ms"

    @classmethod
    def of(cls, scaling: Scaling) -> "ScalingOut":
        return cls(
            max_batch_size=scaling.max_batch_size,
            min_replicas=scaling.min_replicas,
            max_replicas=scaling.max_replicas,
            scale_up_delay=scaling.scale_up_delay_ms,
            scale_down_delay=scaling.scale_down_delay_ms,
        )


class OptimizationOut(WireOut):
    optimization_type: str = Field(description='`""`: none.')
    quantization_type: Quantization


class ParametersOut(WireOut):
    """Everything that a deploy can set, with the defaults filled in."""

    hyper_parameters: HyperParametersOut
    scaling_parameters: ScalingOut
    device_type: str
    optimization_info: OptimizationOut

    @classmethod
    def of(cls, spec: DeploySpec) -> "ParametersOut":
        return cls(
            hyper_parameters=HyperParametersOut.of(spec.hyper),
            scaling_parameters=ScalingOut.of(spec.scaling),
            device_type=spec.device_type,
            optimization_info=OptimizationOut(
                optimization_type=spec.optimization or "", quantization_type=spec.quantization
            ),
        )
