"""The body of a deploy, its reply, and the plan that a dry run replies with."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from dockyard.api.wire.base import Warnings, WireIn, WireOut
from dockyard.api.wire.fields import Flag, Ignored, Integer, Items, Number, OneOf, Text, refused, shown
from dockyard.api.wire.parameters import ParametersOut
from dockyard.domain import spec
from dockyard.domain.compatibility import check_quantization
from dockyard.domain.devices import DEVICES
from dockyard.domain.job import Action, Job
from dockyard.domain.lifecycle import JobStatus
from dockyard.domain.spec import EngineName, ModelType, Quantization
from dockyard.errors import Invalid, Reason
from dockyard.services.deploy_checks import DeployPlan, DeployWish

NAME_RULE = "must be letters, digits, spaces, '.', '_' and '-', starting with a letter or digit"

DeploymentName = Annotated[str, Text(spec.NAME_LENGTH, spec.NAME_PATTERN, NAME_RULE)]


class HyperParametersIn(WireIn):
    """Sampling defaults of the deployment, and the ceiling of a request's `max_tokens`."""

    temperature: Annotated[float, Number(spec.TEMPERATURE)] = Field(description="Randomness; 0 is greedy.")
    max_tokens: Annotated[int, Integer(spec.MAX_TOKENS)] = Field(
        description="Default and ceiling of a request's `max_tokens`."
    )
    top_p: Annotated[float, Number(spec.TOP_P)] = Field(
        description="Nucleus sampling; 0 keeps the single most probable token."
    )
    top_k: Annotated[int, Integer(spec.TOP_K)] = Field(description="Sample from so many of the most probable tokens.")
    stop_sequence: (
        Annotated[list[Annotated[str, Text(spec.STOP_SEQUENCE_LENGTH)]], Items(spec.STOP_SEQUENCES)] | None
    ) = Field(default=None, description="Where the output ends; they never appear in it.")


class ScalingIn(WireIn):
    """Batch and replica bounds. The delays are in the server's unit, milliseconds unless it was set otherwise."""

    max_batch_size: Annotated[int, Integer(spec.MAX_BATCH_SIZE)] = Field(
        default=spec.DEFAULT_MAX_BATCH_SIZE, description="The largest batch that the engine runs."
    )
    max_replicas: Annotated[int, Integer(spec.MAX_REPLICAS)] | None = Field(
        default=None, description="The most replicas that may run; without it the larger of 2 and minReplicas."
    )
    # After maxReplicas, which its check needs to have been read.
    min_replicas: Annotated[int, Integer(spec.MIN_REPLICAS)] = Field(
        default=spec.DEFAULT_MIN_REPLICAS, description="Replicas that always run; at most maxReplicas."
    )
    scale_up_delay: Annotated[int, Integer(spec.SCALE_UP_DELAY)] = Field(
        default=spec.DEFAULT_SCALE_UP_DELAY, description="How long demand must last before replicas are added, in ms."
    )
    scale_down_delay: Annotated[int, Integer(spec.SCALE_DOWN_DELAY)] = Field(
        default=spec.DEFAULT_SCALE_DOWN_DELAY, description="How long replicas must be idle before they go, in ms."
    )

    @field_validator("min_replicas", mode="after")
    @classmethod
    def _at_most_max(cls, value: int, info: ValidationInfo) -> int:
        most = info.data.get("max_replicas")
        if most is not None and value > most:
            raise refused(Reason.OUT_OF_RANGE, f"must be at most maxReplicas, which is {most}, got {value}")
        return value

    def resolved(self, delay_unit_ms: int) -> spec.Scaling:
        return spec.Scaling(
            max_batch_size=self.max_batch_size,
            min_replicas=self.min_replicas,
            max_replicas=self.max_replicas or max(spec.DEFAULT_MAX_REPLICAS, self.min_replicas),
            scale_up_delay_ms=self.scale_up_delay * delay_unit_ms,
            scale_down_delay_ms=self.scale_down_delay * delay_unit_ms,
        )


class OptimizationIn(WireIn):
    """The engine that serves the model, and the precision of its weights."""

    optimization_type: (
        Annotated[EngineName, OneOf({"": None, **{str(e): e for e in (EngineName.CTRANSLATE2, EngineName.VLLM)}})]
        | None
    ) = Field(default=None, description='`""`, null and absent mean none: plain Transformers.')
    quantization_type: (
        Annotated[
            Quantization,
            OneOf({"": Quantization.NONE, **{str(quantization): quantization for quantization in Quantization}}),
        ]
        | None
    ) = Field(
        default=None, description='`""`, null and absent mean `no_quantization`; `int8_float16` needs `ctranslate2`.'
    )

    @field_validator("quantization_type", mode="after")
    @classmethod
    def _engine_can(cls, value: Quantization, info: ValidationInfo) -> Quantization:
        if "optimization_type" not in info.data:  # it was refused itself
            return value
        try:
            check_quantization(info.data["optimization_type"] or EngineName.TRANSFORMERS, value)
        except Invalid as error:
            raise refused(error.reason, error.message.removeprefix("quantizationType ")) from error
        return value


class DeployIn(WireIn):
    """What to deploy a model with."""

    name: DeploymentName = Field(
        description="The deployment's name. A deploy of the same model and name is a redeploy: a new version."
    )
    hyper_parameters: HyperParametersIn
    scaling_parameters: ScalingIn | None = None
    device_type: Annotated[str, OneOf(DEVICES.keys())] = Field(description="The device that each replica gets.")
    optimization_info: OptimizationIn | None = None
    model_type: Annotated[Any, Ignored()] = Field(
        default=None, description="Informational, as `deployconfig.json` of an export has it: the query counts."
    )
    base_model: Annotated[Any, Ignored()] = Field(
        default=None, description="Informational, as `deployconfig.json` of an adapter has it."
    )
    is_deployed_previously: Annotated[bool, Flag()] | None = Field(
        default=None, description="Informational: the server knows by itself, and warns when it knows otherwise."
    )
    is_deployed_previouly: Annotated[bool, Flag()] | None = Field(
        default=None,
        description="The older spelling of `isDeployedPreviously`.",
        json_schema_extra={"deprecated": True},
    )

    def wish(self, model_type: ModelType, delay_unit_ms: int, warnings: tuple[str, ...]) -> DeployWish:
        hyper = self.hyper_parameters
        optimization = self.optimization_info or OptimizationIn()
        before = self.is_deployed_previously
        if self.model_type not in (None, model_type):
            told = f"modelType is {shown(self.model_type)} in the body and {model_type} in the query; the query counts"
            warnings = (*warnings, told)
        return DeployWish(
            name=self.name,
            model_type=model_type,
            spec=spec.DeploySpec(
                hyper=spec.HyperParameters(
                    temperature=hyper.temperature,
                    max_tokens=hyper.max_tokens,
                    top_p=hyper.top_p,
                    top_k=hyper.top_k,
                    stop=tuple(hyper.stop_sequence or ()),
                ),
                device_type=self.device_type,
                scaling=(self.scaling_parameters or ScalingIn()).resolved(delay_unit_ms),
                optimization=optimization.optimization_type,
                quantization=optimization.quantization_type or Quantization.NONE,
            ),
            is_deployed_previously=self.is_deployed_previouly if before is None else before,
            warnings=warnings,
        )


class AcceptedOut(WireOut):
    """The work was accepted and goes on behind the reply; watch it with *Get dock status*."""

    dock_status_id_as_printed: str = Field(
        serialization_alias="dock-statusId", description="The pages' sample spells it so."
    )
    dock_status_id: str
    model_id: str
    job_type: Literal["MODELS"] = "MODELS"
    action: Action
    status: JobStatus
    warnings: Warnings = ()

    @classmethod
    def of(cls, job: Job, warnings: tuple[str, ...] = ()) -> "AcceptedOut":
        """`warnings` of the reading, where the job does not hold them already."""
        return cls(
            dock_status_id_as_printed=job.job_id,
            dock_status_id=job.job_id,
            model_id=job.model_id,
            action=job.action,
            status=job.status,
            warnings=(*job.warnings, *warnings),
        )


class MemoryOut(WireOut):
    """Bytes of one replica on the device, by part, on all the GPUs that it uses together.

    `hostTotalBytes` is what it takes of this host's memory when the CPU stands in.
    """

    device_bytes: int = Field(description="What the GPUs that it uses have.")
    gpu_bytes: int = Field(description="What one of them has.")
    weights_bytes: int
    cache_bytes: int = Field(description="Keys and values of one full batch of `contextLength` tokens each.")
    work_bytes: int = Field(description="What computing the prompts of such a batch takes beside them.")
    overhead_bytes: int = Field(description="The engine's own.")
    total_bytes: int
    bytes_each: int = Field(description="On each GPU: it fits if that is at most 92 % of `gpuBytes`.")
    context_length: int
    host_total_bytes: int


class CostOut(WireOut):
    """With `minReplicas` and with `maxReplicas` running, at the provider's published on-demand price."""

    currency: Literal["USD"] = "USD"
    min: float
    max: float


class PlanOut(WireOut):
    """What the deploy would do. Nothing was started and nothing was written."""

    dry_run: Literal[True] = True
    model_id: str
    version: int
    version_name: str
    engine: str
    compute_type: str
    runs_on: str
    device_type: str
    tensor_parallel: int = Field(description="How many of the device's GPUs share one replica.")
    memory: MemoryOut
    artifact_cached: bool = Field(description="Whether the converted weights are there already.")
    estimated_hourly_cost: CostOut
    parameters: ParametersOut
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, plan: DeployPlan) -> "PlanOut":
        need = plan.device_need
        gpu_bytes = DEVICES[plan.spec.device_type].gpu_bytes
        return cls(
            model_id=plan.model.model_id,
            version=plan.deployment_version,
            version_name=plan.version_name,
            engine=plan.runtime.engine,
            compute_type=plan.runtime.compute_type,
            runs_on=plan.runtime.runs_on,
            device_type=plan.spec.device_type,
            tensor_parallel=need.gpus,
            memory=MemoryOut(
                device_bytes=gpu_bytes * need.gpus,
                gpu_bytes=gpu_bytes,
                weights_bytes=need.weights_bytes,
                cache_bytes=need.cache_bytes,
                work_bytes=need.work_bytes,
                overhead_bytes=need.overhead_bytes,
                total_bytes=need.total_bytes,
                bytes_each=need.bytes_each,
                context_length=need.context_length,
                host_total_bytes=plan.host_need.total_bytes,
            ),
            artifact_cached=plan.artifact_cached,
            estimated_hourly_cost=CostOut(min=plan.usd_per_hour_min, max=plan.usd_per_hour_max),
            parameters=ParametersOut.of(plan.spec),
            warnings=plan.warnings,
        )


def _published(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "hyperParameters": {"temperature": 1, "maxTokens": 512, "topP": 1, "topK": 50, "stopSequence": []},
        "scalingParameters": {
            "maxBatchSize": 10,
            "minReplicas": 1,
            "maxReplicas": 2,
            "scaleUpDelay": 30,
            "scaleDownDelay": 600,
        },
        "deviceType": "g5.xlarge",
        "optimizationInfo": {"optimizationType": "", "quantizationType": ""},
        "isDeployedPreviously": True,
    }


DEPLOY_EXAMPLES: dict[str, Any] = {
    "openSource": {"summary": "An open-source model, as published", "value": _published("Flant5_model")},
    "fineTune": {"summary": "A fine-tuned model, as published", "value": _published("gpt2")},
    "optimized": {
        "summary": "CTranslate2 with 8-bit weights, everything else by default",
        "value": {
            "name": "smol",
            "hyperParameters": {"temperature": 0.7, "maxTokens": 256, "topP": 0.95, "topK": 40},
            "deviceType": "g5.xlarge",
            "optimizationInfo": {"optimizationType": "ctranslate2", "quantizationType": "int8_float16"},
        },
    },
}
