"""Models in and out of the registry."""

from dataclasses import dataclass
from pathlib import Path

from dockyard.domain.event import Event
from dockyard.domain.ids import new_id
from dockyard.domain.job import Action, Job
from dockyard.domain.lifecycle import ModelState
from dockyard.domain.model import Model
from dockyard.domain.spec import ModelType
from dockyard.errors import Conflict, Invalid, NotFound, Reason
from dockyard.services.context import Context, Policy
from dockyard.services.pruning import discard_orphans, forget_model
from dockyard.store.paging import Page
from dockyard.store.transaction import Transaction

_MODEL_FILES = ("config.json", "adapter_config.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPath:
    """A folder or file of the server, as the client wrote it."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HubRepository:
    """A repository of the hub: "org/name", a branch, tag or commit of it, and one GGUF file if there are several."""

    name: str
    revision: str | None = None
    file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportWish:
    """A model to import."""

    name: str
    model_type: ModelType
    source: ServerPath | HubRepository
    base_model_id: str | None = None
    warnings: tuple[str, ...] = ()


async def import_model(ctx: Context, wish: ImportWish, actor: str) -> Job:
    """Register the model and the job that brings it in; the work goes on behind the reply.

    Raises `Invalid` (PATH_NOT_FOUND, PATH_NOT_ALLOWED) for a path that the server will not read.
    """
    source = _noted(wish.source, ctx.policy)
    async with ctx.store.transaction() as tx:
        job = await begin_import(
            tx,
            Model(
                model_id=new_id("cm"),
                name=wish.name,
                model_type=wish.model_type,
                source=source,
                created_at=ctx.clock.now(),
                modified_at=ctx.clock.now(),
                base_model_id=wish.base_model_id,
            ),
            wish.warnings,
            actor,
        )
    ctx.wake()
    return job


async def begin_import(tx: Transaction, model: Model, warnings: tuple[str, ...], actor: str) -> Job:
    """Write down a model that is to be brought in and the job that does it. The caller wakes the loops afterwards."""
    now = model.created_at
    if model.base_model_id is not None:
        await check_base(tx, model.base_model_id)
    job = Job(
        job_id=new_id("ds"),
        model_id=model.model_id,
        action=Action.IMPORT,
        created_at=now,
        modified_at=now,
        warnings=warnings,
    )
    await tx.models.add(model)
    await tx.jobs.add(job)
    await tx.events.add(
        Event(
            event_id=new_id("ev"),
            at=now,
            subject=model.model_id,
            before=None,
            after=model.state,
            reason="IMPORT_REQUESTED",
            message=f"import of {model.name}",
            actor=actor,
            model_id=model.model_id,
        )
    )
    return job


async def get_model(ctx: Context, model_id: str) -> Model:
    async with ctx.store.reading() as tx:
        return await tx.models.get(model_id)


async def list_models(ctx: Context, limit: int, cursor: str | None, state: ModelState | None = None) -> Page[Model]:
    async with ctx.store.reading() as tx:
        return await tx.models.page(limit, cursor, state=state)


def check_ready(model: Model, verb: str) -> None:
    """Raise `Conflict` (MODEL_NOT_READY) for a model whose files are not there yet, or never will be."""
    if model.state is ModelState.READY and model.card is not None:
        return
    if model.state is ModelState.FAILED:
        told = f"the import of {model.name} failed ({model.reason}): {model.message}; import it again"
    else:
        told = f"{model.name} is {model.state}; {verb} it once it is {ModelState.READY}"
    raise Conflict(told, reason=Reason.MODEL_NOT_READY)


async def delete_model(ctx: Context, model_id: str) -> int:
    """Delete a model that nothing serves, with its undeployed deployments. Returns the bytes freed on disk.

    Files that another model shares stay. Raises `Conflict` (STILL_DEPLOYED, BASE_MODEL_IN_USE, JOB_IN_PROGRESS).
    """
    async with ctx.store.transaction() as tx:
        model = await tx.models.get(model_id)
        if model.state in (ModelState.IMPORTING, ModelState.VALIDATING):
            raise Conflict(
                f"{model.name} is still being imported; cancel its import or wait for its end",
                reason=Reason.JOB_IN_PROGRESS,
            )
        live = [d.name for d in await tx.deployments.all_wanted_or_live() if d.model_id == model_id]
        if live:
            raise Conflict(
                f"{model.name} is deployed as {', '.join(live)}; undeploy it first", reason=Reason.STILL_DEPLOYED
            )
        await _check_no_adapters(tx, model)
        await _check_not_exporting(tx, model)
        orphans = await forget_model(tx, model)
    await ctx.keyring.refresh()  # the keys of its deployments went with it
    return await discard_orphans(ctx, orphans)


async def _check_no_adapters(tx: Transaction, model: Model) -> None:
    """Models with whole weights only tell where they come from, and do not need it."""
    on_their_way = (ModelState.IMPORTING, ModelState.VALIDATING)
    needing = [
        f"{other.name} ({other.model_id})"
        for other in await tx.models.based_on(model.model_id)
        if other.adapter is not None or other.state in on_their_way
    ]
    if needing:
        raise Conflict(
            f"{model.name} is the base model of {', '.join(needing)}; delete that first",
            reason=Reason.BASE_MODEL_IN_USE,
        )


async def _check_not_exporting(tx: Transaction, model: Model) -> None:
    for job in await tx.jobs.in_progress():
        if job.action is Action.EXPORT and job.model_id == model.model_id:
            raise Conflict(
                f"{model.name} has {job.action} {job.job_id} in progress; wait for its end or cancel it",
                reason=Reason.JOB_IN_PROGRESS,
            )


async def check_base(tx: Transaction, base_model_id: str) -> None:
    try:
        await tx.models.get(base_model_id)
    except NotFound as error:
        raise NotFound(f"baseModelId: {error.message}", field="baseModelId") from error


def _noted(source: ServerPath | HubRepository, policy: Policy) -> dict[str, str]:
    """The source as the model's row keeps it."""
    if isinstance(source, ServerPath):
        return {"path": str(_readable(source.path, policy)), "given": source.path}
    noted = {"huggingFace": source.name, "revision": source.revision, "file": source.file}
    return {name: value for name, value in noted.items() if value is not None}


def _readable(path: str, policy: Policy) -> Path:
    """`path` with its links resolved, if the policy lets it be read."""
    if "\0" in path or not Path(path).is_absolute():
        raise Invalid(
            "source.path must be an absolute path on the server", reason=Reason.BAD_FORMAT, field="source.path"
        )
    try:
        resolved = Path(path).resolve()
        allowed = any(resolved.is_relative_to(root.resolve()) for root in policy.import_roots)
        if not allowed and (policy.import_roots or not policy.loopback):
            raise Invalid(
                f"{path} is outside the folders that models may be imported from (DOCKYARD_IMPORT_ROOTS on the server)",
                reason=Reason.PATH_NOT_ALLOWED,
                field="source.path",
            )
        exists = resolved.exists()
        wrong = None if not exists else _wrong_kind(resolved)
    except (OSError, RuntimeError) as error:  # too long a name, a loop of links, no permission to look
        raise Invalid(
            "source.path cannot be read on the server", reason=Reason.PATH_NOT_FOUND, field="source.path"
        ) from error
    if wrong is not None:
        raise Invalid(f"{path} {wrong[1]}", reason=wrong[0], field="source.path")
    if not exists:
        raise Invalid(
            f"the server finds nothing at {path}; the path is one of the machine that runs `dockyard serve`",
            reason=Reason.PATH_NOT_FOUND,
            field="source.path",
        )
    return resolved


def _wrong_kind(found: Path) -> tuple[Reason, str] | None:
    """Why nothing at `found` can be imported, as far as one look tells; what shows only later fails the import."""
    if found.is_dir():
        if any((found / name).exists() for name in _MODEL_FILES) or any(found.glob("*.gguf")):
            return None
        return (
            Reason.CONFIG_MISSING,
            "has no config.json; name the model's own folder, with config.json, the tokenizer's files and safetensors "
            "weights",
        )
    if not found.is_file():
        return Reason.SOURCE_NOT_SUPPORTED, "is neither a folder nor a file; name a model's folder or a .gguf file"
    with found.open("rb") as file:
        if file.read(4) == b"GGUF":
            return None
    if found.suffix.lower() in (".tar", ".zip"):
        way_out = "is an archive; unpack it, or send it in chunks: `dockyard models import` does so where the file is"
    elif (found.parent / "config.json").exists():
        way_out = "is one file of a model; name the folder that it lies in"
    else:
        way_out = "is no GGUF file; name a model's folder, or a .gguf file"
    return Reason.SOURCE_NOT_SUPPORTED, way_out
