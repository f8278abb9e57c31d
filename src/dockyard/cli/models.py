"""dockyard models: bring models in, look at them, take them out, delete them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dockyard.cli.command import Session, command
from dockyard.cli.download import fetch, free_target
from dockyard.cli.lookup import get_model
from dockyard.cli.output import cells
from dockyard.cli.watch import announce, follow_job

app = typer.Typer(help="Import, list, export and delete models.", no_args_is_help=True)

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The model's id, or its name if no other has it.")]


@command(app, "import")
def import_(
    session: Session,
    path: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="A model folder with safetensors, or a GGUF file."),
    ],
    name: Annotated[str | None, typer.Option(help="The model's name. Default: the path's last part.")] = None,
    model_type: Annotated[str, typer.Option("--type", help="openSource or fineTune.")] = "openSource",
    base: Annotated[str | None, typer.Option(metavar="MODEL", help="The model that this one was tuned from.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Watch the import to its end.")] = True,
) -> None:
    """Import a model from a folder or a GGUF file of the machine that runs the server."""
    body: dict[str, Any] = {
        "name": name or _name_of(path),
        "modelType": model_type,
        "source": {"path": str(path.absolute())},
    }
    if base:
        body["baseModelId"] = get_model(session.client, base)["modelId"]
    reply = session.client.call("POST", "models", body=body)
    if not wait:
        announce(session, reply)
        return
    session.out.note(f"importing {body['name']} as {reply['modelId']}")
    follow_job(session, reply["dockStatusId"])


@command(app, "list")
def list_(session: Session) -> None:
    """List the models."""
    document = session.client.pages("models", plural="models")
    columns = ("ID", "NAME", "TYPE", "STATE", "ARCHITECTURE", "SIZE", "MADE")
    rows = [_row(model) for model in document["models"]]
    session.out.listing(document, columns, rows, "no models yet; bring one in: `dockyard models import PATH`")


@command(app, "show")
def show(session: Session, model: ModelArgument) -> None:
    """Show one model: its state, files and architecture."""
    session.out.record(get_model(session.client, model))


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

    found = get_model(session.client, model)
    target = free_target(output, f"{file_stem(found['name'])}.tar")
    reply = session.client.call("POST", "models", found["modelId"], "export", params={"name": name})
    archive = follow_job(session, reply["dockStatusId"])["response"]
    fetch(session, archive, target)
    session.out.line(str(target))
    session.out.note(f"{archive['sizeBytes'] / (1 << 20):.1f} MiB, sha256 {archive['sha256']}")


@command(app, "delete")
def delete(session: Session, model: ModelArgument) -> None:
    """Delete a model that nothing serves, with its files."""
    found = get_model(session.client, model)
    reply = session.client.call("DELETE", "models", found["modelId"])
    if session.out.as_json:
        session.out.json(reply)
    freed = reply.get("freedBytes", 0) / (1 << 20)
    session.out.line(f"deleted {found['name']} ({found['modelId']}), {freed:.1f} MiB freed")


def _name_of(path: Path) -> str:
    absolute = path.absolute()
    return absolute.stem if absolute.suffix.lower() == ".gguf" else absolute.name


def _row(model: dict[str, Any]) -> list[Any]:
    size = model.get("sizeBytes")
    mib = f"{size / (1 << 20):.1f} MiB" if size else None
    return [*cells(model, "modelId", "name", "modelType", "state", "card.architecture"), mib, model["createdOn"]]
