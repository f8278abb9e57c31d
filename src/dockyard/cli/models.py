"""dockyard models: bring models in, look at them, take them out, delete them."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from dockyard.cli.command import Session, command
from dockyard.cli.download import fetch, free_target
from dockyard.cli.failures import CommandFailed
from dockyard.cli.lookup import FAILED, get_model
from dockyard.cli.model_card import readable_model
from dockyard.cli.output import cells, size_text
from dockyard.cli.source import read_source
from dockyard.cli.upload import forget_upload, is_archive, upload
from dockyard.cli.watch import announce, follow_job

app = typer.Typer(help="Import, list, export and delete models.", no_args_is_help=True)

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The model's id, or its name if no other has it.")]


@command(app, "import")
def import_(
    session: Session,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A model folder with safetensors or a GGUF file, of the machine that runs the server; a .tar or .zip "
            "of this machine, which is sent; or org/repo on the Hugging Face hub (hf:org/repo says so for sure, "
            "./folder/name is a path for sure).",
        ),
    ],
    name: Annotated[str | None, typer.Option(help="The model's name. Default: the source's last part.")] = None,
    model_type: Annotated[
        str | None,
        typer.Option("--type", help="openSource or fineTune.", show_default="openSource, with --base fineTune"),
    ] = None,
    base: Annotated[str | None, typer.Option(metavar="MODEL", help="The model that this one was tuned from.")] = None,
    revision: Annotated[
        str | None, typer.Option(help="Of the hub: a branch, a tag or a commit. Default: the repository's main branch.")
    ] = None,
    file: Annotated[
        str | None, typer.Option(help="Of the hub: the GGUF file, where the repository has several.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Watch the import to its end.")] = True,
) -> None:
    """Import a model: from the disk of the server's machine, an archive of this one, or the Hugging Face hub."""
    place = read_source(source, revision, file)
    wish: dict[str, Any] = {
        "name": name or place.name,
        "modelType": model_type or ("fineTune" if base else "openSource"),
    }
    if base:
        wish["baseModelId"] = get_model(session.client, base, to_use=True)["modelId"]
    sent = place.path if place.path is not None and is_archive(place.path) else None
    if sent is not None:
        reply = upload(session, sent, wish)
    else:
        reply = session.client.call("POST", "models", body={**wish, "source": place.wire})
    if place.guessed:
        session.out.note(f"{source} is no path here, so it is the hub's; ./{source} is a path for sure")
    if not wait:
        announce(session, reply)
        return
    session.out.note(f"importing {wish['name']} as {reply['modelId']}")
    outcome = follow_job(session, reply["dockStatusId"]).get("response") or {}
    if sent is not None:
        forget_upload(session, sent, wish)
    if session.out.as_json:
        return
    deploy = _deploy_command(session, wish["name"], reply["modelId"], from_export=bool(outcome.get("fromExport")))
    session.out.note(f"deploy it with: {deploy}")
    session.out.note("with --dry-run nothing is started and the plan is shown; the devices: dockyard devices")


@command(app, "list")
def list_(session: Session) -> None:
    """List the models."""
    document = session.client.pages("models", plural="models")
    columns = ("ID", "NAME", "TYPE", "STATE", "ARCHITECTURE", "SIZE", "MADE")
    rows = [_row(model) for model in document["models"]]
    session.out.listing(document, columns, rows, "no models yet; bring one in: `dockyard models import SOURCE`")


@command(app, "show")
def show(session: Session, model: ModelArgument) -> None:
    """Show one model: its state, files and architecture."""
    found = get_model(session.client, model)
    session.out.record(readable_model(found) if session.out.terminal else found)
    if found["state"] == FAILED:
        session.out.note(f"import it again, and remove this one: dockyard models delete {found['modelId']}")


@command(app, "export")
def export(
    session: Session,
    model: ModelArgument,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to save the archive. Default: the model's name with .tar, here."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="DEPLOYMENT", help="Whose parameters go along. Default: the deployment that was deployed last."
        ),
    ] = None,
) -> None:
    """Save a model as a tar: its files, and deployconfig.json to deploy it again with."""
    from dockyard.domain.export import file_stem

    found = get_model(session.client, model, to_use=True)
    target = free_target(output, f"{file_stem(found['name'])}.tar")
    reply = session.client.call("POST", "models", found["modelId"], "export", params={"name": name})
    archive = follow_job(session, reply["dockStatusId"])["response"]
    fetch(session, archive, target)
    session.out.line(str(target))
    session.out.note(f"{size_text(archive['sizeBytes'])}, sha256 {archive['sha256']}")
    session.out.note(f"bring it in, here or on another server, with: {_import_command(target, found['modelType'])}")


@command(app, "delete")
def delete(session: Session, model: ModelArgument) -> None:
    """Delete a model that nothing serves, with its files."""
    found = get_model(session.client, model)
    reply = session.client.call("DELETE", "models", found["modelId"])
    if session.out.as_json:
        session.out.json(reply)
    session.out.line(f"deleted {found['name']} ({found['modelId']}), {size_text(reply['freedBytes'])} freed")
    if found.get("sizeBytes") and not reply["freedBytes"]:
        session.out.note("its files stay: another model shares them")


@command(app, "prune")
def prune(
    session: Session,
    unused_days: Annotated[
        int | None, typer.Option(help="What a version ran on within so many days stays.", show_default="30")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing, list what would be removed.")] = False,
) -> None:
    """Remove converted and left-over files that nobody needs. What models were imported from stays."""
    params = {"unusedDays": unused_days, "dryRun": "true" if dry_run else None}
    reply = session.client.call("POST", "artifacts", "prune", params=params)
    rows = [
        [*cells(one, "artifactKey", "cause", "models", "engine", "quantization"), size_text(one["sizeBytes"])]
        for one in reply["artifacts"]
    ]
    columns = ("ARTIFACT", "CAUSE", "MODELS", "ENGINE", "QUANTIZATION", "SIZE")
    also = "" if unused_days == 0 else "; --unused-days 0 also takes what was used lately and is not now"
    whole = "what models were imported from goes with them: `dockyard models delete MODEL`"
    session.out.listing(reply, columns, rows, f"nothing to prune{also}; {whole}")
    if rows:
        told = "would be freed; nothing was removed, without --dry-run it is" if dry_run else "freed"
        session.out.note(f"{size_text(reply['freedBytes'])} {told}")


def _import_command(archive: Path, model_type: str) -> str:
    kind = "" if model_type == "openSource" else f" --type {model_type}"
    return f"dockyard models import {shlex.quote(str(archive))}{kind}"


def _deploy_command(session: Session, name: str, model_id: str, *, from_export: bool) -> str:
    from dockyard.domain.export import file_stem

    model = shlex.quote(name) if _is_alone(session, name) else model_id
    if from_export:
        return f"dockyard deploy {model} --from-export --wait"
    return f"dockyard deploy {model} --name {file_stem(name)} --device g5.xlarge --wait"


def _is_alone(session: Session, name: str) -> bool:
    """Whether the name leads to the one model; not where the key may not look."""
    try:
        models = session.client.pages("models", plural="models")["models"]
    except CommandFailed:
        return False
    return sum(model["name"] == name and model["state"] != FAILED for model in models) == 1


def _row(model: dict[str, Any]) -> list[Any]:
    size = model.get("sizeBytes")
    return [
        *cells(model, "modelId", "name", "modelType", "state", "card.architecture"),
        size and size_text(size),
        model["createdOn"],
    ]
