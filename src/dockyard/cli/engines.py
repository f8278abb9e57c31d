"""dockyard engines: which are there, and the installation of those that have an environment of their own."""

from pathlib import Path
from typing import Annotated

import typer

from dockyard.cli.command import Session, command
from dockyard.cli.output import Output, cells

app = typer.Typer(help="List engines, and install those that have an environment of their own.", no_args_is_help=True)


@command(app, "list")
def list_(session: Session) -> None:
    """List the engines of the server: installed or not, which version, on what device."""
    document = session.client.get("engines")
    columns = ("ENGINE", "INSTALLED", "VERSION", "RUNS ON", "HOW TO INSTALL")
    rows = [cells(engine, "engine", "installed", "version", "runsOn", "message") for engine in document["engines"]]
    session.out.listing(document, columns, rows, "no engines")


@app.command("install")
def install(
    engine: Annotated[str, typer.Argument(metavar="ENGINE", help="vllm")],
    data_dir: Annotated[
        Path | None,
        typer.Option(help="The server's.", show_default="~/.local/share/dockyard", envvar="DOCKYARD_DATA_DIR"),
    ] = None,
) -> None:
    """Make the engine's Python environment on this machine, in the data directory. A running server finds it."""
    from dockyard.data_dir import Paths
    from dockyard.engine_environments import install_engine
    from dockyard.errors import DockyardError
    from dockyard.settings import default_data_dir

    out = Output(False)
    paths = Paths((data_dir or default_data_dir()).expanduser().resolve())
    try:
        version = install_engine(engine, paths.engines, out.note)
    except DockyardError as error:
        out.note(f"error: {error.message}")
        raise typer.Exit(1) from None
    out.line(f"{engine} {version} is installed; deploy with --optimization {engine}")
