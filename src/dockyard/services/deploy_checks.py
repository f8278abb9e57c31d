"""Everything that a deploy is checked for before it is accepted, and what it would do. Writes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from dockyard.domain.compatibility import (
    card_on,
    check_quantization,
    compute_type,
    install_command,
    instead,
    resolve_engine,
)
from dockyard.domain.deployment import LIVE, Deployment, Runtime, version_name
from dockyard.domain.devices import DEVICES, Host
from dockyard.domain.fit import host_need, in_gib, place_model, replicas_that_fit, room_on_gpus
from dockyard.domain.job import Action
from dockyard.domain.memory import MemoryNeed
from dockyard.domain.model import Model
from dockyard.domain.spec import DeploySpec, EngineName, ModelType, Quantization
from dockyard.errors import Conflict, DockyardError, Invalid, Problem, Reason
from dockyard.services.context import Context
from dockyard.services.models import check_ready
from dockyard.store.transaction import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployWish:
    """A deploy request, read and range-checked. `warnings` of the reading travel on to the reply and the job."""

    name: str
    model_type: ModelType
    spec: DeploySpec
    is_deployed_previously: bool | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployPlan:
    """What a deploy would do. `device_need` on the published device, `host_need` on this host."""

    model: Model
    runtime: Runtime
    device_need: MemoryNeed
    host_need: MemoryNeed
    usd_per_hour_min: float
    usd_per_hour_max: float
    artifact_cached: bool
    deployment_version: int
    version_name: str
    spec: DeploySpec
    warnings: tuple[str, ...]


async def check_deploy(ctx: Context, tx: Transaction, model_id: str, wish: DeployWish) -> DeployPlan:
    model = await tx.models.get(model_id)
    check_ready(model, "deploy")
    deployment = await find_deployment(tx, model_id, wish.name)
    if deployment is not None:
        await check_no_open_job(tx, deployment)
    runtime, device_need, needed, warnings = _check(ctx, model, wish)
    versions = await tx.versions.of_deployment(deployment.deployment_id) if deployment else []
    number = max((version.number for version in versions), default=0) + 1
    known = bool(versions)
    if wish.is_deployed_previously is not None and wish.is_deployed_previously != known:
        warnings = (
            *warnings,
            f"isDeployedPreviously is {str(wish.is_deployed_previously).lower()}, but {wish.name!r} "
            f"{'was' if known else 'was never'} deployed from this model; the server's knowledge counts",
        )
    price = DEVICES[wish.spec.device_type].usd_per_hour
    cached = ctx.preparer.cached(model.weights_for(runtime.engine) or "", runtime.engine, wish.spec.quantization)
    return DeployPlan(
        model=model,
        runtime=runtime,
        device_need=device_need,
        host_need=needed,
        usd_per_hour_min=round(price * wish.spec.scaling.min_replicas, 3),
        usd_per_hour_max=round(price * wish.spec.scaling.max_replicas, 3),
        artifact_cached=cached is not None,
        deployment_version=number,
        version_name=version_name(wish.name, number),
        spec=wish.spec,
        warnings=(*wish.warnings, *warnings),
    )


def _check(ctx: Context, model: Model, wish: DeployWish) -> tuple[Runtime, MemoryNeed, MemoryNeed, tuple[str, ...]]:
    """Model against request, engine, quantization and device; all problems at once."""
    assert model.card is not None
    card, spec = model.card, wish.spec
    problems: list[Problem] = []
    if wish.model_type is not model.model_type:
        problems.append(
            Problem(
                f"modelType is {wish.model_type}, but {model.name} was imported as {model.model_type}",
                Reason.MODEL_TYPE_MISMATCH,
                "modelType",
            )
        )
    try:
        absent = [name for name in EngineName if not ctx.preparer.installed(name)]
        engine = resolve_engine(card.architecture, spec.optimization, spec.quantization, absent)
        check_quantization(engine, spec.quantization)
        card, cut = card_on(engine, card, spec.quantization, absent)
        _check_installed(engine, card.architecture, spec.quantization, absent)
        device, host, batch = DEVICES[spec.device_type], ctx.host(), spec.scaling.max_batch_size
        strict = ctx.policy.strict_devices
        placement, fit = place_model(card, engine, spec.quantization, device, batch, host, strict=strict, absent=absent)
        if placement.kind == "cuda":
            _check_build(ctx, engine)
    except DockyardError as error:
        raise Invalid(problems=(*problems, *error.problems)) from error
    if problems:
        raise Invalid(problems=tuple(problems))
    compute = compute_type(engine, spec.quantization, placement.kind, card, placement.device.capability)
    on_a_cpu = compute_type(engine, spec.quantization, "cpu")
    on_host = host_need(card, engine, on_a_cpu, spec.scaling.max_batch_size, fit.context_length)
    on_cpu = placement.kind == "cpu"
    runtime = Runtime(
        engine=engine,
        device=placement.kind,
        gpus=0 if on_cpu else fit.need.gpus,
        compute_type=compute,
        runs_on=placement.runs_on,
        context_length=fit.context_length,
        memory_bytes=on_host.total_bytes if on_cpu else fit.need.total_bytes,
    )
    return runtime, fit.need, on_host, (*cut, *fit.warnings, *_room_warnings(host, runtime, spec.scaling.min_replicas))


_MORE_ROOM = "Undeploy what is not needed, or ask for a smaller maxBatchSize or fewer minReplicas"


def _room_warnings(host: Host, runtime: Runtime, replicas: int) -> tuple[str, ...]:
    """What is in the way now and may be gone when the replicas start."""
    if runtime.device == "cuda":
        room = room_on_gpus(host, runtime).count
        need = f"{runtime.gpus} GPU(s) with {in_gib(runtime.bytes_each)} free each"
        return (
            ()
            if room >= replicas
            else (f"{replicas} replica(s) need {need}; the host has them for {room} now. {_MORE_ROOM}",)
        )
    trouble = (f"the host's GPUs are not used: {host.gpu_trouble}",) if host.gpu_trouble else ()
    if replicas_that_fit(host, runtime.memory_bytes) >= replicas:
        return trouble
    return (
        *trouble,
        f"the host has {in_gib(host.available_bytes)} of memory free and {replicas} "
        f"replica(s) need {in_gib(runtime.memory_bytes)} each. {_MORE_ROOM}",
    )


def _check_build(ctx: Context, engine: EngineName) -> None:
    why = ctx.preparer.without_gpus(engine)
    if why is not None:
        raise Invalid(
            f"the host's GPUs would stand in for the device, and {engine} cannot use them: {why}",
            reason=Reason.ENGINE_CANNOT_USE_GPU,
            field="optimizationInfo.optimizationType",
        )


def how_to_install(engine: EngineName) -> str:
    own = ", which makes an environment of its own for it," if engine is EngineName.VLLM else ""
    return f"run `{install_command(engine)}` on the server{own} and try again"


def _check_installed(
    engine: EngineName, architecture: str, quantization: Quantization, absent: Sequence[EngineName]
) -> None:
    if engine not in absent:
        return
    raise Invalid(
        f"the engine {engine} is not installed on this server: {how_to_install(engine)}; "
        + instead(architecture, quantization, absent, but=engine),
        reason=Reason.ENGINE_NOT_INSTALLED,
        field="optimizationInfo.optimizationType",
    )


async def find_deployment(tx: Transaction, model_id: str, name: str) -> Deployment | None:
    """The deployment that a deploy of this name is about: the model's own. A live one of another model is a conflict.

    An undeployed name is free again for every model.
    """
    named = await tx.deployments.named(name)
    for deployment in named:
        if deployment.model_id != model_id and await _is_live(tx, deployment):
            raise Conflict(
                f"the name {name!r} belongs to a deployment of model {deployment.model_id}; "
                "choose another name or undeploy that one first",
                reason=Reason.NAME_TAKEN,
                field="name",
            )
    return next((deployment for deployment in named if deployment.model_id == model_id), None)


async def _is_live(tx: Transaction, deployment: Deployment) -> bool:
    versions = await tx.versions.of_deployment(deployment.deployment_id)
    return deployment.wanted or any(version.state in LIVE for version in versions)


async def check_no_open_job(tx: Transaction, deployment: Deployment) -> None:
    """Raises `Conflict` (JOB_IN_PROGRESS): one deploy or undeploy of a deployment at a time."""
    for job in await tx.jobs.in_progress():
        if deployment.deployment_id in (job.deployment_id, *job.request.get("deployments", ())):
            what_then = "wait for its end" if job.action is Action.UNDEPLOY else "wait for its end or cancel it"
            raise Conflict(
                f"{deployment.name} has {job.action} {job.job_id} in progress; {what_then}",
                reason=Reason.JOB_IN_PROGRESS,
                field="name",
            )
