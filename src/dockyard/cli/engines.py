"""dockyard engines: which are there; those that have an environment of their own are installed and removed."""

from pathlib import Path
from typing import Annotated

import typer

from dockyard.cli.command import Session, command
from dockyard.cli.output import Output, cells

app = typer.Typer(help="List engines, install and remove those with an environment of their own.", no_args_is_help=True)


@command(app, "list")
def list_(session: Session) -> None:
    """List the engines of the server: installed or not, which version, on what device."""
    document = session.client.get("engines")
    columns = ("ENGINE", "INSTALLED", "VERSION", "RUNS ON", "HOW TO INSTALL")
    rows = [cells(engine, "engine", "installed", "version", "runsOn", "message") for engine in document["engines"]]
    session.out.listing(document, columns, rows, "no engines")


_Engine = Annotated[str, typer.Argument(metavar="ENGINE", help="vllm")]
_DataDir = Annotated[
    Path | None,
    typer.Option(help="The server's.", show_default="~/.local/share/dockyard", envvar="DOCKYARD_DATA_DIR"),
]


@app.command("install")
def install(engine: _Engine, data_dir: _DataDir = None) -> None:
    """Make the engine's Python environment on this machine, in the data directory. A running server finds it."""
    from dockyard.engine_environments import install_engine
    from dockyard.errors import DockyardError

    out = Output(False)
    try:
        version = install_engine(engine, _engines_below(data_dir), out.note)
    except DockyardError as error:
        out.note(f"error: {error.message}")
        raise typer.Exit(1) from None
    out.line(f"{engine} {version} is installed; deploy with --optimization {engine}")


@app.command("remove")
def remove(engine: _Engine, data_dir: _DataDir = None) -> None:
    """Remove the engine's Python environment, and what its starts have cached, from the data directory."""
    from dockyard.engine_environments import remove_engine

    out = Output(False)
    if not remove_engine(engine, _engines_below(data_dir)):
        out.note(f"error: {engine} has no environment in the data directory; dockyard engines list tells what is there")
        raise typer.Exit(1)
    out.line(f"{engine} is removed")


def _engines_below(data_dir: Path | None) -> Path:
    from dockyard.data_dir import Paths
    from dockyard.settings import default_data_dir

    return Paths((data_dir or default_data_dir()).expanduser().resolve()).engines
